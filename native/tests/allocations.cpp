// Lets every single allocation of the library fail once: each has to become an error with a
// message, never an abort, and lose nothing (which LeakSanitizer says at the end). Then sizes that
// are valid and that no machine has memory for.
//
// Linked with --wrap for the two functions that the library takes memory with; what the standard
// library's own binary takes is not seen.
#include <cstddef>
#include <new>

#include "tiny_model.h"

extern "C" const char* __asan_default_options() {
    return "allocator_may_return_null=1:halt_on_error=1:abort_on_error=1:detect_leaks=1";
}
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

namespace {

bool is_counting = false;
long n_before_failure = 0;  // allocations that succeed before one fails

bool fails_now() { return is_counting && n_before_failure-- == 0; }

}  // namespace

extern "C" {
void* __real_aligned_alloc(size_t alignment, size_t n);
void* __real__Znwm(size_t n);
void* __wrap_aligned_alloc(size_t alignment, size_t n) {
    return fails_now() ? nullptr : __real_aligned_alloc(alignment, n);
}
// operator new(size_t)
void* __wrap__Znwm(size_t n) {
    if (fails_now()) throw std::bad_alloc();
    return __real__Znwm(n);
}
}

namespace {

using tiny::fail;

// Runs `call` with the first allocation failing, then the second, and so on until it needs no more;
// returns how many it needs. `call` returns whether it succeeded.
template <class Call>
long fail_each(const char* what, const Call& call) {
    for (long n = 0;; n++) {
        char message[64] = "";
        n_before_failure = n;
        is_counting = true;
        const bool succeeded = call(message, sizeof message);
        is_counting = false;
        const bool failed_one = n_before_failure < 0;
        if (succeeded == failed_one) fail(what, failed_one ? "lacked memory and went on" : message);
        if (succeeded) return n;
        if (std::strstr(message, "memory") == nullptr) fail(what, message);
    }
}

void fail_each_of_a_kernel(int32_t kernel) {
    tiny::Numbers numbers((uint64_t)kernel + 1);
    const em_shape shape = tiny::small_shape(kernel, numbers);
    const tiny::Tensors tensors = tiny::right_tensors(shape, kernel, tiny::Weights::Calm, numbers);
    em_model* model = nullptr;
    const long of_model = fail_each("a model", [&](char* message, size_t n) {
        model = em_model_new(&shape, kernel, tensors.list.data(), (int64_t)tensors.list.size(),
                             message, n);
        return model != nullptr;
    });
    em_context* context = nullptr;
    const long of_context = fail_each("a context", [&](char* message, size_t n) {
        context = em_context_new(model, 100, 2, message, n);
        return context != nullptr;
    });
    const tiny::Batch batch = tiny::right_batch(shape, 100, numbers);
    std::vector<float> out((size_t)(batch.n_sequences() * shape.n_embd));
    const long of_batch = fail_each("a batch", [&](char* message, size_t n) {
        return em_encode(context, batch.ids.data(), batch.types.data(), batch.offsets.data(),
                         batch.n_sequences(), 1, 3, out.data(), message, n) == EM_OK;
    });
    std::printf("%s %s: %ld allocations of a model, %ld of a context, %ld of a batch\n",
                em_kernel_isa(kernel), em_kernel_compute_type(kernel), of_model, of_context,
                of_batch);
    if (of_model == 0 || of_context == 0) fail("no allocation was seen");
    em_context_free(context);
    em_model_free(model);
}

// A model whose tables or weights are beyond any address space. The tensors' sizes are right, their
// data is not there: whoever reads it before the memory is had, crashes.
void refuse_sizes(int32_t kernel, int64_t n_embd, int64_t n_ff, int64_t n_positions) {
    tiny::Numbers numbers(1);
    em_shape shape = tiny::small_shape(kernel, numbers);
    shape.n_layers = 1;
    shape.n_heads = 1;
    shape.n_embd = n_embd;
    shape.n_ff = n_ff;
    shape.n_positions = n_positions;
    shape.position_encoding = EM_ABSOLUTE;
    shape.activation = EM_GELU;
    // what has as few values as a row is really there
    const std::vector<float> row((size_t)(n_embd > n_ff ? n_embd : n_ff) * 4);
    std::vector<em_tensor> list;
    for (size_t place = 0; place < EM_N_MODEL_TENSORS + EM_N_LAYER_TENSORS; place++) {
        const tiny::Size size = tiny::size_at(shape, place);
        const float* data = size.n_rows > 0 ? row.data() : nullptr;
        const bool is_bytes = tiny::multiplies_bytes(kernel) && tiny::is_multiplied(shape, place);
        list.push_back({data, is_bytes ? tiny::Q8_0 : tiny::F32, size.n_rows, size.n_columns});
    }
    char message[64] = "";
    em_model* model =
        em_model_new(&shape, kernel, list.data(), (int64_t)list.size(), message, sizeof message);
    if (model != nullptr || std::strstr(message, "memory") == nullptr)
        fail("sizes beyond all memory were not refused:", message);
}

}  // namespace

int main() {
    for (int32_t kernel = 0; kernel < em_n_kernels(); kernel++) {
        fail_each_of_a_kernel(kernel);
        // 2^48 floats, and 2^46 weights, are more than the 2^47 bytes that a process can address
        refuse_sizes(kernel, 1 << 24, 32, 1 << 24);
        refuse_sizes(kernel, 1 << 23, 32, 1);
    }
    return 0;
}

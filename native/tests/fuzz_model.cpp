// Feeds the C interface models and batches that are right, and ones with something wrong in them.
//
//     fuzz_model [inputs] [seed]
//
// makes inputs of its own. For libFuzzer, which looks for inputs that reach new code:
//
//     CXX=clang++ cmake -S native/tests -B build -DSANITIZE=address,undefined,fuzzer-no-link
//         -DLIBFUZZER=ON && cmake --build build --target fuzz_model && build/fuzz_model
//
// What was made right has to be taken, what is refused has to come with a message and to leave
// `out` alone; everything else is for the sanitizers to find.
#include <cmath>

#include "tiny_model.h"

// Allocations that are too large are refused like any other; what is found ends the program.
extern "C" const char* __asan_default_options() {
    return "allocator_may_return_null=1:halt_on_error=1:abort_on_error=1:detect_leaks=1";
}
extern "C" const char* __ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

namespace {

using tiny::fail;
using tiny::Numbers;

struct Counts {
    size_t models_taken = 0, models_refused = 0, batches_taken = 0, batches_refused = 0;
} counts;

// Decisions, out of the input's bytes; 0 after the last, which is what makes a model right.
class Choices {
public:
    Choices(const uint8_t* bytes, size_t n) : bytes_(bytes), n_(n) {}

    uint32_t below(uint32_t n) {
        const uint32_t low = byte();
        return (low | byte() << 8) % n;
    }
    bool once_in(uint32_t n) { return below(n) == n - 1; }

    int64_t strange_size() {
        static const int64_t sizes[] = {0,       -1,      3,         1 << 24,   (1 << 24) + 1,
                                        INT32_MAX, INT64_MAX, INT64_MIN, INT64_C(1) << 32};
        return sizes[below(sizeof sizes / sizeof *sizes)];
    }

private:
    uint32_t byte() { return at_ < n_ ? bytes_[at_++] : 0; }

    const uint8_t* bytes_;
    size_t n_, at_ = 0;
};

// Room for a message, of exactly so many bytes. All but the first are to be written to.
struct Message {
    size_t n;
    std::unique_ptr<char[]> text;

    explicit Message(Choices& choices) {
        static const size_t sizes[] = {512, 1, 0, 16};
        n = sizes[choices.below(4)];
        text.reset(new char[n]);
        if (n > 0) std::memset(text.get(), 'x', n);
        if (choices.once_in(8)) text.reset();
    }
    void check_was_told() const {
        if (text == nullptr || n == 0) return;
        const void* end = std::memchr(text.get(), 0, n);
        if (end == nullptr) fail("a message has no end");
        if (n > 1 && end == text.get()) fail("a refusal has no message");
    }
};

void break_shape(em_shape& shape, Choices& choices) {
    int64_t* const sizes[] = {&shape.n_layers,      &shape.n_embd,  &shape.n_ff,
                              &shape.n_heads,       &shape.n_vocab, &shape.n_positions,
                              &shape.n_token_types, &shape.n_rotated};
    float* const constants[] = {&shape.norm_eps, &shape.rotary_base, &shape.alibi_bias};
    int32_t* const kinds[] = {&shape.position_encoding, &shape.activation};
    static const float floats[] = {0.0f, -1.0f, INFINITY, NAN, 1e-38f, 3e38f};
    static const int32_t numbers[] = {-1, 0, 1, 2, 3, INT32_MAX};
    const uint32_t which = choices.below(13);
    if (which < 8)
        *sizes[which] = choices.strange_size();
    else if (which < 11)
        *constants[which - 8] = floats[choices.below(6)];
    else
        *kinds[which - 11] = numbers[choices.below(6)];
}

// Puts another tensor in place of one: none, one of another size, or of a type that is not known.
// Data stays as large as a known type and the size say.
void break_tensor(tiny::Tensors& tensors, Choices& choices, Numbers& numbers) {
    const size_t place = choices.below((uint32_t)tensors.list.size());
    const uint32_t how = choices.below(4);
    if (how == 0) {
        static const int32_t types[] = {-1, 2, 3, 12, 31, INT32_MAX, INT32_MIN};
        tensors.list[place].type = types[choices.below(7)];
    } else if (how == 1) {
        tensors.list[place].data = nullptr;
    } else if (how == 2) {
        int64_t tiny::Size::*const side[] = {&tiny::Size::n_rows, &tiny::Size::n_columns};
        const auto small = [](int64_t n) { return n > 0 && n < 200 ? n : 1; };
        tiny::Size size{small(tensors.list[place].n_rows), small(tensors.list[place].n_columns)};
        size.*side[choices.below(2)] = 1 + choices.below(80);
        tensors.add(tiny::any_type(size.n_columns, numbers), size, tiny::Weights::Calm, 0, numbers);
        tensors.put_last_at(place);
    } else {
        em_tensor& tensor = tensors.list[place];
        (choices.below(2) ? tensor.n_rows : tensor.n_columns) = choices.strange_size();
    }
}

struct Made {
    em_model* model = nullptr;
    tiny::Tensors tensors;
    bool is_calm = true;
};

// A small model, most often one that has to be taken.
Made make_model(int32_t kernel, Choices& choices, Numbers& numbers) {
    static const tiny::Weights kinds[] = {tiny::Weights::Calm, tiny::Weights::Calm,
                                          tiny::Weights::Huge, tiny::Weights::AnyBits};
    const tiny::Weights kind = kinds[choices.below(4)];
    Made made;
    made.is_calm = kind == tiny::Weights::Calm;
    made.tensors = tiny::right_tensors(tiny::small_shape(kernel, numbers), kernel, kind, numbers);
    const bool breaks_shape = choices.once_in(4), breaks_tensors = choices.once_in(4);
    const bool breaks_list = choices.once_in(16), has_shape = !choices.once_in(32);
    if (breaks_shape) {
        break_shape(made.tensors.shape, choices);
        made.is_calm = false;
    }
    for (uint32_t n = breaks_tensors ? 1 + choices.below(2) : 0; n > 0; n--)
        break_tensor(made.tensors, choices, numbers);
    int64_t n_tensors = (int64_t)made.tensors.list.size();
    if (breaks_list)
        n_tensors = choices.once_in(4) ? INT64_MIN : choices.below((uint32_t)n_tensors);
    if (choices.once_in(32)) kernel = choices.below(2) ? -1 : em_n_kernels();
    const Message message(choices);
    made.model = em_model_new(has_shape ? &made.tensors.shape : nullptr, kernel,
                              made.tensors.list.data(), n_tensors, message.text.get(), message.n);
    const bool is_right = !breaks_shape && !breaks_tensors && !breaks_list && has_shape &&
                          em_kernel_lanes(kernel) > 0;
    if (made.model == nullptr) message.check_was_told();
    if (made.model == nullptr && is_right) fail("a right model was refused:", message.text.get());
    (made.model != nullptr ? counts.models_taken : counts.models_refused)++;
    made.tensors.free_what_was_packed();
    return made;
}

// Does something to a batch that is not allowed. What is read before it is seen stays in bounds:
// the ids and types are as many as the last offset says where that is one that could be taken.
void break_batch(tiny::Batch& batch, const em_shape& shape, Choices& choices) {
    static const int32_t strange[] = {-1, INT32_MIN, INT32_MAX, 1 << 24};
    const uint32_t how = choices.below(4);
    const auto token = choices.below((uint32_t)batch.n_tokens());
    if (how == 0) {
        batch.ids[token] = choices.below(2) ? (int32_t)shape.n_vocab : strange[choices.below(3)];
    } else if (how == 1) {
        batch.types[token] =
            choices.below(2) ? (int32_t)shape.n_token_types : strange[choices.below(3)];
    } else if (how == 2) {
        batch.offsets[choices.below((uint32_t)batch.offsets.size())] = strange[choices.below(4)];
    } else {
        // an empty sequence, or one that runs backwards
        const auto at = choices.below((uint32_t)batch.n_sequences());
        batch.offsets[at + 1] = batch.offsets[at] - (int32_t)choices.below(3);
    }
}

// Checks what a call left in `out`, which was all NaN of one kind.
void check_rows(int32_t status, const float* out, size_t n, uint32_t before, bool is_calm) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, out + i, sizeof bits);
        if (status != EM_OK && bits != before) fail("a refused batch wrote to its rows");
        if (status == EM_OK && is_calm && !std::isfinite(out[i])) fail("a row is not finite");
    }
}

void encode(em_context* context, const Made& made, int64_t most_tokens, Choices& choices,
            Numbers& numbers) {
    constexpr uint32_t BEFORE = 0x7fabcdef;
    const em_shape& shape = made.tensors.shape;
    tiny::Batch batch = tiny::right_batch(shape, most_tokens, numbers);
    int32_t pooling = (int32_t)choices.below(4);
    const size_t n = (size_t)(batch.n_rows(pooling) * shape.n_embd);
    const std::unique_ptr<float[]> out(new float[n]);
    for (size_t i = 0; i < n; i++) std::memcpy(&out[i], &BEFORE, sizeof BEFORE);
    int64_t n_sequences = batch.n_sequences();
    const uint32_t wrong = choices.below(16);
    if (wrong == 1) break_batch(batch, shape, choices);
    if (wrong == 2) n_sequences = choices.below(2) ? 0 : INT64_MIN;
    if (wrong == 3) pooling = choices.below(2) ? -1 : 4;
    auto n_threads = (int32_t)(1 + choices.below(3));
    if (wrong == 8) n_threads = choices.below(2) ? 0 : 1 << 20;
    const bool has_types = wrong == 1 || choices.below(2) == 0;
    const Message message(choices);
    const int32_t status = em_encode(
        wrong == 4 ? nullptr : context, wrong == 5 ? nullptr : batch.ids.data(),
        has_types ? batch.types.data() : nullptr, wrong == 6 ? nullptr : batch.offsets.data(),
        n_sequences, pooling, n_threads, wrong == 7 ? nullptr : out.get(), message.text.get(),
        message.n);
    const bool is_right = wrong == 0 || wrong > 8;
    if (status != EM_OK && is_right) fail("a right batch was refused:", message.text.get());
    if (status == EM_OK && !is_right) fail("a wrong batch was taken");
    if (status != EM_OK) message.check_was_told();
    check_rows(status, out.get(), n, BEFORE, made.is_calm);
    (is_right ? counts.batches_taken : counts.batches_refused)++;
}

void run_input(Choices& choices, Numbers& numbers) {
    const auto kernel = (int32_t)choices.below((uint32_t)em_n_kernels());
    const Made made = make_model(kernel, choices, numbers);
    static const int64_t strange[] = {0, -1, INT64_MAX, INT64_MIN, (1 << 24) + 1};
    const bool is_strange = choices.once_in(16);
    const int64_t n_tokens = is_strange ? strange[choices.below(5)] : 1 + choices.below(100);
    const auto n_threads = (int32_t)(1 + choices.below(3));
    const Message message(choices);
    em_context* context = em_context_new(made.model, n_tokens, n_threads, message.text.get(), message.n);
    if ((context != nullptr) != (made.model != nullptr && !is_strange))
        fail("a context was refused or taken wrongly:", message.text.get());
    if (context == nullptr) message.check_was_told();
    for (uint32_t n = context != nullptr ? 1 + choices.below(3) : 0; n > 0; n--)
        encode(context, made, n_tokens, choices, numbers);
    if ((em_context_bytes(context) > 0) != (context != nullptr)) fail("a context has no size");
    if ((em_model_bytes(made.model) > 0) != (made.model != nullptr)) fail("a model has no size");
    em_context_free(context);
    em_model_free(made.model);
}

}  // namespace

// The first eight bytes seed sizes and weights, those after them are choices.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t n) {
    uint64_t seed = 0;
    const size_t used = n < sizeof seed ? n : sizeof seed;
    if (used > 0) std::memcpy(&seed, bytes, used);
    Numbers numbers(seed);
    Choices choices(bytes + used, n - used);
    run_input(choices, numbers);
    return 0;
}

#ifndef EMBELLAMA_LIBFUZZER
int main(int n_arguments, char** arguments) {
    const long n_inputs = n_arguments > 1 ? std::atol(arguments[1]) : 1000;
    Numbers numbers(n_arguments > 2 ? (uint64_t)std::atoll(arguments[2]) : 1);
    for (long input = 0; input < n_inputs; input++) {
        const size_t n = numbers.below(200);
        std::vector<uint8_t> bytes(n);
        for (uint8_t& byte : bytes) byte = (uint8_t)numbers.next();
        LLVMFuzzerTestOneInput(bytes.data(), n);
    }
    std::printf("%zu models taken, %zu refused; %zu batches taken, %zu refused\n",
                counts.models_taken, counts.models_refused, counts.batches_taken,
                counts.batches_refused);
    const bool all_happened = counts.models_taken > 0 && counts.models_refused > 0 &&
                              counts.batches_taken > 0 && counts.batches_refused > 0;
    if (!all_happened) std::fprintf(stderr, "FAILED: one of these never happened\n");
    return all_happened ? 0 : 1;
}
#endif

// Times the steps of forward passes on every kernel of this CPU but the scalar ones, one thread.
//
//     time_ops LAYERS EMBD FF HEADS SECONDS LENGTH...
//
// LENGTH... are the tokens of the sequences of one micro-batch; SECONDS are spent on each kernel.
// Weights are random. In each round there is a pass with a clock between its steps, a pass as it
// is, and some of a loop of nothing but multiplications and additions in registers. A round is a
// line: instruction set, compute type, seconds of each step, of the pass as it is, and
// multiplications and additions a second of that loop.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <vector>

#include "build_model.h"
#include "steps.h"
#include "tiny_model.h"

namespace embellama {

double thread_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#if defined(__x86_64__)
extern const TimedKernels timed_avx2, timed_avx2_int8, timed_avx512, timed_avx512_int8,
    timed_avx512_bf16, timed_avx512_bf16_int8;
static const TimedKernels* const TIMED[] = {&timed_avx2,        &timed_avx2_int8,
                                            &timed_avx512,      &timed_avx512_int8,
                                            &timed_avx512_bf16, &timed_avx512_bf16_int8};
#elif defined(__aarch64__)
extern const TimedKernels timed_neon, timed_neon_bf16;
static const TimedKernels* const TIMED[] = {&timed_neon, &timed_neon_bf16};
#endif

}  // namespace embellama

namespace {

using namespace embellama;

constexpr int LEAST_ROUNDS = 3;
constexpr size_t PEAK_ROUNDS = 100'000;  // some milliseconds

const TimedKernels* timed_for(const Kernels& kernels) {
    for (const TimedKernels* one : TIMED)
        if (std::strcmp(one->isa, kernels.isa) == 0 &&
            std::strcmp(one->compute_type, kernels.compute_type) == 0 &&
            one->per_unit == kernels.packing.per_unit)
            return one;
    return nullptr;
}

em_shape shape_of(char** widths) {
    em_shape shape{};
    shape.n_layers = std::atol(widths[0]);
    shape.n_embd = std::atol(widths[1]);
    shape.n_ff = std::atol(widths[2]);
    shape.n_heads = std::atol(widths[3]);
    shape.n_positions = 512;
    shape.n_token_types = 2;
    shape.n_vocab = 1000;
    shape.norm_eps = 1e-12f;
    return shape;
}

// Tensors of a model, all of a type on the same random numbers: only their packed copies are read
// again. What layers multiply is F32, or Q8_0.
struct SharedTensors {
    std::vector<uint8_t> floats, blocks;
    std::vector<em_tensor> list;

    SharedTensors(const em_shape& shape, bool is_int8) {
        const size_t n = EM_N_MODEL_TENSORS + (size_t)shape.n_layers * EM_N_LAYER_TENSORS;
        tiny::Numbers numbers(1);
        fill(floats, tiny::F32, shape, n, numbers);
        fill(blocks, tiny::Q8_0, shape, n, numbers);
        for (size_t place = 0; place < n; place++) {
            const bool is_block = is_int8 && tiny::is_multiplied(shape, place);
            const bool is_there = tiny::has_tensor(shape, {false, false, true}, place);
            const tiny::Size size = is_there ? tiny::size_at(shape, place) : tiny::Size{};
            const uint8_t* data = is_block ? blocks.data() : floats.data();
            list.push_back({is_there ? data : nullptr, is_block ? tiny::Q8_0 : tiny::F32,
                            size.n_rows, size.n_columns});
        }
    }

private:
    // Makes as many as the largest of n tensors has.
    static void fill(std::vector<uint8_t>& out, tiny::Type type, const em_shape& shape, size_t n,
                     tiny::Numbers& numbers) {
        size_t largest = 0;
        for (size_t place = 0; place < n; place++)
            largest = std::max(largest, tiny::bytes_of(type, tiny::size_at(shape, place)));
        out.resize(largest);
        tiny::fill(out.data(), largest, type, tiny::Weights::Calm, numbers);
    }
};

void time_kernels(const Kernels& kernels, const TimedKernels& timed, const em_shape& shape,
                  const Batch& batch, double seconds) {
    const SharedTensors tensors(shape, kernels.packing.is_int8);
    const Model model =
        build_model(shape, kernels, tensors.list.data(), tensors.list.size());
    Workspace work(model.shape, kernels.packing, kernels.n_rows, batch.n_tokens());
    std::vector<float> out(batch.n_sequences * model.shape.n_embd);
    kernels.run(model, batch, Pooling::Mean, work, Team(), out.data());  // memory is mapped now
    const double end = thread_seconds() + seconds;
    for (int round = 0; round < LEAST_ROUNDS || thread_seconds() < end; round++) {
        double steps[N_STEPS] = {};
        timed.run(model, batch, work, steps, out.data());
        const double start = thread_seconds();
        kernels.run(model, batch, Pooling::Mean, work, Team(), out.data());
        const double whole = thread_seconds() - start;
        std::printf("%s %s", kernels.isa, kernels.compute_type);
        for (const double one : steps) std::printf(" %.9f", one);
        std::printf(" %.9f %.6e\n", whole, timed.peak(PEAK_ROUNDS));
    }
    std::fflush(stdout);
}

}  // namespace

int main(int n_arguments, char** arguments) {
    if (n_arguments < 7) {
        std::fprintf(stderr, "time_ops LAYERS EMBD FF HEADS SECONDS LENGTH...\n");
        return 2;
    }
    const em_shape shape = shape_of(arguments + 1);
    std::vector<int32_t> offsets{0}, ids;
    for (int i = 6; i < n_arguments; i++)
        offsets.push_back(offsets.back() + std::atoi(arguments[i]));
    tiny::Numbers numbers(2);
    for (int32_t i = 0; i < offsets.back(); i++)
        ids.push_back((int32_t)numbers.below((uint32_t)shape.n_vocab));
    const Batch batch{ids.data(), nullptr, offsets.data(), offsets.size() - 1};
    size_t n_kernels = 0;
    const Kernels* const* list = usable_kernels(&n_kernels);
    for (size_t i = 0; i < n_kernels; i++)
        if (const TimedKernels* timed = timed_for(*list[i]))
            time_kernels(*list[i], *timed, shape, batch, std::atof(arguments[5]));
    return 0;
}

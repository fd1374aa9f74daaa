// A forward pass with a clock between its steps, and the most that a core can multiply and add.
//
// Each instruction set's file includes this, and nothing of the standard library that could be
// shared with code for other CPUs.
#pragma once

#include "forward.h"

namespace embellama {

// Steps as they are told apart; both norms of a layer are one, and what is done once a pass.
enum TimedStep : int { ONCE, QKV, ATTENTION, OUT, NORMS, UP, DOWN, N_STEPS };

// Processor time of this thread: what other programs take from its core is left out.
double thread_seconds();

struct TimedKernels {
    const char* isa;
    const char* compute_type;
    // Adds the seconds of each step of a pass with mean pooling, of a model with no gates and with
    // absolute positions.
    void (*run)(const Model& model, const Batch& batch, Workspace& work, double* seconds,
                float* out);
    // Returns multiplications and additions a second of a loop of `n` rounds of nothing but `dot`.
    double (*peak)(size_t n);
};

// N sums, each a variable of its own: a compiler leaves an array of vectors in memory.
template <class Isa, int N>
struct Sums {
    typename Isa::Vec sum;
    Sums<Isa, N - 1> others;

    EMBELLAMA_INLINE void start(const float* from) {
        sum = Isa::load(from);
        others.start(from + 1);  // all different, or they would be computed once
    }
    EMBELLAMA_INLINE void dot(typename Isa::Units a, typename Isa::Units b) {
        sum = Isa::dot(sum, a, b);
        others.dot(a, b);
    }
    EMBELLAMA_INLINE typename Isa::Vec total() const { return Isa::add(sum, others.total()); }
};

template <class Isa>
struct Sums<Isa, 0> {
    EMBELLAMA_INLINE void start(const float*) {}
    EMBELLAMA_INLINE void dot(typename Isa::Units, typename Isa::Units) {}
    EMBELLAMA_INLINE typename Isa::Vec total() const { return Isa::zero(); }
};

// As many sums as a tile has: enough to hide how long an instruction takes, few enough for the
// registers.
template <class Isa>
double peak(size_t n) {
    constexpr int N_SUMS = Isa::ROWS * Isa::VECTORS;
    float starts[N_SUMS + Isa::LANES];
    uint32_t units[Isa::LANES];
    for (int i = 0; i < N_SUMS + Isa::LANES; i++) starts[i] = (float)i;
    for (int i = 0; i < Isa::LANES; i++) units[i] = 0x3c003c00;  // about 0.0078, once or twice
    Sums<Isa, N_SUMS> sums;
    sums.start(starts);
    const auto a = Isa::load_units(units), b = Isa::broadcast_unit(units);
    const double start = thread_seconds();
    for (size_t i = 0; i < n; i++) sums.dot(a, b);
    float totals[Isa::LANES];
    Isa::store(totals, sums.total());
    volatile float used = totals[0];  // or there would be no reason to compute them
    const double seconds = thread_seconds() - start;
    (void)used;
    return 2.0 * N_SUMS * Isa::LANES * Isa::PER_UNIT * (double)n / seconds;
}

struct Clock {
    double last = thread_seconds();

    void lap(double& seconds) {
        const double now = thread_seconds();
        seconds += now - last;
        last = now;
    }
};

// As run_encoder and run_layer of forward.h have it.
template <class Isa>
void run_timed(const Model& model, const Batch& batch, Workspace& work, double* seconds,
               float* out) {
    Pass pass{model, batch, work, Team()};
    Clock clock;
    embed_tokens<Isa>(pass);
    clock.lap(seconds[ONCE]);
    for (const Layer& layer : model.layers) {
        make_queries<Isa>(pass, layer);
        clock.lap(seconds[QKV]);
        attend_sequences<Isa>(pass);
        clock.lap(seconds[ATTENTION]);
        add_product<Isa>(pass, layer.out, work.attended.get());
        clock.lap(seconds[OUT]);
        finish_attention<Isa>(pass, layer);
        clock.lap(seconds[NORMS]);
        make_inner<Isa>(pass, layer);
        clock.lap(seconds[UP]);
        add_product<Isa>(pass, layer.down, work.inner.get());
        clock.lap(seconds[DOWN]);
        finish_layer<Isa>(pass, layer);
        clock.lap(seconds[NORMS]);
    }
    pool_rows<Isa>(model.shape, batch, Pooling::Mean, work.rows.get(), out);
    clock.lap(seconds[ONCE]);
}

template <class Isa>
constexpr TimedKernels timed_kernels_of(const char* isa, const char* compute_type) {
    return TimedKernels{isa, compute_type, run_timed<Isa>, peak<Isa>};
}

}  // namespace embellama

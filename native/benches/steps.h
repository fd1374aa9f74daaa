// A forward pass with a clock between its steps, and the most that a core can multiply and add.
//
// Each instruction set's file includes this, and nothing of the standard library that could be
// shared with code for other CPUs.
#pragma once

#include "forward.h"
#include "operand.h"

namespace embellama {

// Steps as they are told apart; both norms of a layer are one, and what is done once a pass.
enum TimedStep : int { ONCE, QKV, ATTENTION, OUT, NORMS, UP, DOWN, N_STEPS };

// Processor time of this thread: what other programs take from its core is left out.
double thread_seconds();

struct TimedKernels {
    const char* isa;
    const char* compute_type;
    size_t per_unit;  // of attention; tells kernels of bytes apart: see Packing
    // Adds the seconds of each step of a pass with mean pooling, of a model with no gates and with
    // absolute positions.
    void (*run)(const Model& model, const Batch& batch, Workspace& work, double* seconds,
                float* out);
    // Returns multiplications and additions a second of a loop of `n` rounds of nothing but `dot`.
    double (*peak)(size_t n);
};

// What a layer's products are made of: as many sums as a tile has, which are enough to hide how
// long an instruction takes, and few enough for the registers.
template <class Isa, bool IS_INT8 = Isa::IS_INT8>
struct Dots {
    static constexpr int N_SUMS = Isa::ROWS * Isa::VECTORS;
    static constexpr size_t PER_UNIT = Isa::PER_UNIT;
    using Sum = typename Isa::Vec;
    using Units = typename Isa::Units;

    static Sum start(const uint32_t* from) {
        return Isa::load(reinterpret_cast<const float*>(from));
    }
    static Units load(const uint32_t* from) { return Isa::load_units(from); }
    static Units broadcast(const uint32_t* from) { return Isa::broadcast_unit(from); }
    static Sum dot(Sum sum, Units a, Units b) { return Isa::dot(sum, a, b); }
    static Sum floats(Sum sum) { return sum; }
};

template <class Isa>
struct Dots<Isa, true> {
    static constexpr int N_SUMS = Isa::INT8_ROWS * Isa::INT8_VECTORS;
    static constexpr size_t PER_UNIT = 4;
    using Sum = typename Isa::Sums;
    using Units = typename Isa::Bytes;

    static Sum start(const uint32_t* from) { return Isa::load_sums(from); }
    static Units load(const uint32_t* from) { return Isa::load_bytes(from); }
    static Units broadcast(const uint32_t* from) { return Isa::broadcast_bytes(from); }
    static Sum dot(Sum sum, Units a, Units b) { return Isa::dot_int8(sum, a, b); }
    static typename Isa::Vec floats(Sum sum) { return Isa::floats(sum); }
};

// N sums, each a variable of its own: a compiler leaves an array of vectors in memory.
template <class Isa, int N>
struct Sums {
    using Units = typename Dots<Isa>::Units;
    typename Dots<Isa>::Sum sum;
    Sums<Isa, N - 1> others;

    EMBELLAMA_INLINE void start(const uint32_t* from) {
        sum = Dots<Isa>::start(from);
        others.start(from + 1);  // all different, or they would be computed once
    }
    EMBELLAMA_INLINE void dot(Units a, Units b) {
        sum = Dots<Isa>::dot(sum, a, b);
        others.dot(a, b);
    }
    EMBELLAMA_INLINE typename Isa::Vec total() const {
        return Isa::add(Dots<Isa>::floats(sum), others.total());
    }
};

template <class Isa>
struct Sums<Isa, 0> {
    EMBELLAMA_INLINE void start(const uint32_t*) {}
    EMBELLAMA_INLINE void dot(typename Dots<Isa>::Units, typename Dots<Isa>::Units) {}
    EMBELLAMA_INLINE typename Isa::Vec total() const { return Isa::zero(); }
};

template <class Isa>
double peak(size_t n) {
    constexpr int N_SUMS = Dots<Isa>::N_SUMS;
    uint32_t starts[N_SUMS + Isa::LANES];
    uint32_t units[Isa::LANES];
    for (int i = 0; i < N_SUMS + Isa::LANES; i++) starts[i] = bits_of((float)i);
    // about 0.0078 once or twice; as bytes 60 and 0
    for (int i = 0; i < Isa::LANES; i++) units[i] = 0x3c003c00;
    Sums<Isa, N_SUMS> sums;
    sums.start(starts);
    const auto a = Dots<Isa>::load(units), b = Dots<Isa>::broadcast(units);
    const double start = thread_seconds();
    for (size_t i = 0; i < n; i++) sums.dot(a, b);
    float totals[Isa::LANES];
    Isa::store(totals, sums.total());
    volatile float used = totals[0];  // or there would be no reason to compute them
    const double seconds = thread_seconds() - start;
    (void)used;
    return 2.0 * N_SUMS * Isa::LANES * Dots<Isa>::PER_UNIT * (double)n / seconds;
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
    using Vec = typename Isa::Vec;
    Pass pass{model, batch, work, Team()};
    Clock clock;
    embed_tokens<Isa>(pass);
    clock.lap(seconds[ONCE]);
    for (const Layer& layer : model.layers) {
        make_queries<Isa>(pass, layer);
        clock.lap(seconds[QKV]);
        attend_sequences<Isa>(pass);
        clock.lap(seconds[ATTENTION]);
        add_attended<Isa>(pass, layer);
        clock.lap(seconds[OUT]);
        finish_attention<Isa>(pass, layer);
        clock.lap(seconds[NORMS]);
        make_inner<Isa, false>(
            pass, layer, [](const Piece&) EMBELLAMA_INLINED {},
            [](Vec value, const float*) EMBELLAMA_INLINED { return gelu_of<Isa>(value); });
        clock.lap(seconds[UP]);
        add_product<Isa>(pass, layer.down, inner_of<Isa>(work, layer.down.n_in));
        clock.lap(seconds[DOWN]);
        finish_layer<Isa>(pass, layer);
        clock.lap(seconds[NORMS]);
    }
    pool_rows<Isa>(model.shape, batch, Pooling::Mean, work.rows.get(), out);
    clock.lap(seconds[ONCE]);
}

template <class Isa>
constexpr TimedKernels timed_kernels_of(const char* isa, const char* compute_type) {
    return TimedKernels{isa, compute_type, Isa::PER_UNIT, run_timed<Isa>, peak<Isa>};
}

}  // namespace embellama

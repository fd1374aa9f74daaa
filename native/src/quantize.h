// Rows of floats to 8-bit operands (int8_layout.h).
#pragma once

#include <cmath>

#include "functions.h"
#include "int8_layout.h"

namespace embellama {

// A block whose values are not further apart becomes its middle: 127 / x has to stay finite.
constexpr float INT8_SMALLEST = 1e-30f;

// Where a row's operand goes.
struct Int8Row {
    uint8_t* bytes = nullptr;   // n, a multiple of 32; with the instruction set's offset
    float* scales = nullptr;    // n / 32
    float* shifts = nullptr;    // n / 32 where it is shifted
};

// Finds the largest magnitude of each block or, for SHIFTED, half its range (into `scales`) and its
// middle (into `shifts`). A row with a value that is not finite gets NaN for all its scales, and so
// for all its products.
// Takes the values from `value_at(at)`, LANES at a time and each once, in order.
template <class Isa, bool SHIFTED, class ValueAt>
EMBELLAMA_INLINE void find_ranges(size_t n, const ValueAt& value_at, const Int8Row& out) {
    using Vec = typename Isa::Vec;
    Vec check = Isa::zero();  // stays 0 while values are finite
    for (size_t start = 0; start < n; start += INT8_BLOCK) {
        Vec most = Isa::set(-INFINITY), least = most;  // `least` of the negated values
#pragma GCC unroll 32
        for (size_t at = start; at < start + INT8_BLOCK; at += Isa::LANES) {
            const Vec value = value_at(at), negated = Isa::sub(Isa::zero(), value);
            check = Isa::fma(value, Isa::zero(), check);
            most = Isa::max(most, SHIFTED ? value : Isa::max(value, negated));
            if constexpr (SHIFTED) least = Isa::max(least, negated);
        }
        const size_t block = start / INT8_BLOCK;
        const float largest = Isa::largest(most);
        out.scales[block] = largest;
        if constexpr (SHIFTED) {
            const float smallest = -Isa::largest(least);
            out.scales[block] = 0.5f * largest - 0.5f * smallest;
            out.shifts[block] = 0.5f * largest + 0.5f * smallest;
        }
    }
    if (!(Isa::sum(check) == 0.0f))
        for (size_t block = 0; block < n / INT8_BLOCK; block++) out.scales[block] = NAN;
}

// Makes bytes of a row and, of its ranges, scales and shifts.
template <class Isa, bool SHIFTED>
EMBELLAMA_INLINE void quantize_blocks(const float* row, size_t n, const Int8Row& out) {
    for (size_t start = 0; start < n; start += INT8_BLOCK) {
        const size_t block = start / INT8_BLOCK;
        const float range = out.scales[block];
        const auto factor = Isa::set(range > INT8_SMALLEST ? 127.0f / range : 0.0f);
        const auto middle = SHIFTED ? Isa::set(out.shifts[block]) : Isa::zero();
        const float scale = range * (1.0f / 127.0f);
        out.scales[block] = scale;
        if constexpr (SHIFTED) out.shifts[block] -= (float)Isa::INT8_OFFSET * scale;
#pragma GCC unroll 32
        for (size_t at = start; at < start + INT8_BLOCK; at += Isa::LANES) {
            auto value = Isa::load(row + at);
            if constexpr (SHIFTED) value = Isa::sub(value, middle);
            Isa::store_bytes(out.bytes + at, Isa::mul(value, factor));
        }
    }
}

// Makes a row of n values an operand.
//
// A plain block's scale is its largest magnitude / 127, and a byte the nearest integer to
// value / scale. A shifted block's is half its range / 127, and the byte that of value − middle;
// where a range is a few of float32's steps, the middle may be one off and the byte would be beyond
// 127: it stays there.
// Source: quantize_row_q8_0_ref in ggml-quants.c, which also rounds the scale to half precision.
template <class Isa, bool SHIFTED>
EMBELLAMA_INLINE void quantize_row(const float* row, size_t n, const Int8Row& out) {
    find_ranges<Isa, SHIFTED>(
        n, [&](size_t at) EMBELLAMA_INLINED { return Isa::load(row + at); }, out);
    quantize_blocks<Isa, SHIFTED>(row, n, out);
}

}  // namespace embellama

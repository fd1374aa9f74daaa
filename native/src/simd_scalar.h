// No vectors: what every other instruction set is compared with.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "operand.h"

namespace embellama {

struct ScalarFloat {
    static constexpr bool IS_INT8 = false;
    static constexpr bool KEEPS_HALVES = true;
    static constexpr int LANES = 1;
    static constexpr int ROWS = 4;
    static constexpr int VECTORS = 4;
    static constexpr size_t PER_UNIT = 1;
    using Vec = float;
    using Units = uint32_t;
    using Element = float;

    static Vec zero() { return 0.0f; }
    static Vec set(float value) { return value; }
    static Vec load(const float* from) { return *from; }
    static Vec load_f16(const uint16_t* from) { return from_f16(*from); }
    static Vec load_bf16(const uint16_t* from) { return from_bf16(*from); }
    static void store(float* to, Vec value) { *to = value; }
    static Vec add(Vec a, Vec b) { return a + b; }
    static Vec sub(Vec a, Vec b) { return a - b; }
    static Vec mul(Vec a, Vec b) { return a * b; }
    static Vec max(Vec a, Vec b) { return a > b ? a : b; }
    static Vec min(Vec a, Vec b) { return a < b ? a : b; }
    static Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
    static Vec round(Vec a) { return std::nearbyint(a); }
    // n may be beyond all integers where scores are not finite
    static Vec times_power_of_2(Vec a, Vec n) { return std::ldexp(a, n < 1000.0f ? (int)n : 1000); }
    static float sum(Vec a) { return a; }
    static float largest(Vec a) { return a; }

    static Units load_units(const uint32_t* from) { return *from; }
    static Units broadcast_unit(const uint32_t* from) { return *from; }
    static Vec dot(Vec sum, Units a, Units b) { return sum + float_of(a) * float_of(b); }
    static void store_elements(Element* to, Vec value) { *to = value; }
};

struct ScalarBf16 : ScalarFloat {
    static constexpr size_t PER_UNIT = 2;
    using Element = uint16_t;

    static Vec dot(Vec sum, Units a, Units b) {
        const float high = float_of(a & 0xffff0000) * float_of(b & 0xffff0000);
        const float low = float_of(a << 16) * float_of(b << 16);
        return sum + low + high;
    }
    static void store_elements(Element* to, Vec value) { *to = to_bf16(value); }
};

}  // namespace embellama

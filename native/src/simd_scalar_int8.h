// Dot products of bytes without vectors: what every other instruction set is compared with.
#pragma once

#include "simd_scalar.h"

namespace embellama {

// `Float` is ScalarFloat or ScalarBf16.
template <class Float>
struct ScalarInt8 : Float {
    static constexpr bool IS_INT8 = true;
    static constexpr int INT8_ROWS = 4;
    static constexpr int INT8_VECTORS = 4;
    static constexpr int INT8_OFFSET = 0;
    using Sums = int32_t;
    using Bytes = uint32_t;

    static Sums no_sums() { return 0; }
    static Sums load_sums(const uint32_t* from) { return (int32_t)*from; }
    static Bytes load_bytes(const uint32_t* from) { return *from; }
    static Bytes broadcast_bytes(const uint32_t* from) { return *from; }
    static Sums dot_int8(Sums sum, Bytes values, Bytes weights) {
        for (int shift = 0; shift < 32; shift += 8)
            sum += (int32_t)(int8_t)(values >> shift) * (int32_t)(int8_t)(weights >> shift);
        return sum;
    }
    static float floats(Sums sum) { return (float)sum; }
    // Where a value was not finite its scale is NaN, whatever the byte.
    static void store_bytes(uint8_t* to, float value) {
        const float near = ScalarFloat::max(ScalarFloat::min(value, 127.0f), -128.0f);
        *to = std::isfinite(value) ? (uint8_t)(int)std::nearbyint(near) : (uint8_t)0;
    }
};

}  // namespace embellama

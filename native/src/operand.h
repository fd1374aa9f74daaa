// Numbers as they are multiplied, and back.
//
// An operand is a row of 32-bit units along the inner dimension of a product: one float, or two
// bfloat16. `Element` is one number of it.
#pragma once

#include <cstdint>
#include <cstring>

namespace embellama {
namespace {

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Rounds to the nearest bfloat16, halves to the even one; NaN stays NaN.
inline uint16_t to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_bf16(uint16_t value) { return float_of((uint32_t)value << 16); }

// IEEE 754 half precision, subnormal numbers, infinities and NaN included.
inline float from_f16(uint16_t value) {
    const uint32_t sign = (uint32_t)(value & 0x8000) << 16;
    const uint32_t exponent = (value >> 10) & 0x1f;
    const uint32_t mantissa = value & 0x3ff;
    if (exponent == 0x1f) return float_of(sign | 0x7f800000 | (mantissa << 13));
    if (exponent != 0) return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
    const float magnitude = (float)mantissa * (1.0f / 16777216.0f);  // 2^-24
    return float_of(sign | bits_of(magnitude));
}

template <class Element>
Element element_of(float value);
template <>
inline float element_of<float>(float value) { return value; }
template <>
inline uint16_t element_of<uint16_t>(float value) { return to_bf16(value); }

}  // namespace
}  // namespace embellama

// NEON of 64-bit Arm: 4 lanes.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace embellama {

struct NeonFloat {
    static constexpr bool IS_INT8 = false;
    static constexpr bool KEEPS_HALVES = true;
    static constexpr int LANES = 4;
    // 6 × 4 sums, 4 columns and a value: 29 of 32 registers. Few loads for a product among the tiles
    // that fit, and heads of 32 and 64 are whole panels of 16 columns.
    static constexpr int ROWS = 6;
    static constexpr int VECTORS = 4;
    static constexpr size_t PER_UNIT = 1;
    using Vec = float32x4_t;
    using Units = uint32x4_t;
    using Element = float;

    static Vec zero() { return vdupq_n_f32(0.0f); }
    static Vec set(float value) { return vdupq_n_f32(value); }
    static Vec load(const float* from) { return vld1q_f32(from); }
    static Vec load_f16(const uint16_t* from) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
    }
    static Vec load_bf16(const uint16_t* from) {
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(from), 16));
    }
    static void store(float* to, Vec value) { vst1q_f32(to, value); }
    static Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
    static Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
    static Vec mul(Vec a, Vec b) { return vmulq_f32(a, b); }
    static Vec max(Vec a, Vec b) { return vmaxq_f32(a, b); }
    static Vec min(Vec a, Vec b) { return vminq_f32(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
    static Vec round(Vec a) { return vrndnq_f32(a); }
    // n from -126 on, a near 1: the exponent is added to as an integer.
    static Vec times_power_of_2(Vec a, Vec n) {
        const int32x4_t exponent = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
        return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), exponent));
    }
    static float sum(Vec a) { return vaddvq_f32(a); }
    static float largest(Vec a) { return vmaxvq_f32(a); }

    static Units load_units(const uint32_t* from) { return vld1q_u32(from); }
    static Units broadcast_unit(const uint32_t* from) { return vld1q_dup_u32(from); }
    static Vec dot(Vec sum, Units a, Units b) {
        return vfmaq_f32(sum, vreinterpretq_f32_u32(a), vreinterpretq_f32_u32(b));
    }
    static void store_elements(Element* to, Vec value) { vst1q_f32(to, value); }
};

#ifdef __ARM_FEATURE_BF16_VECTOR_ARITHMETIC
struct NeonBf16 : NeonFloat {
    static constexpr size_t PER_UNIT = 2;
    using Element = uint16_t;

    // BFDOT rounds its sums to odd and takes subnormal numbers as zero.
    // Source: Arm Architecture Reference Manual, BFDOT (vector) and FPDot().
    static Vec dot(Vec sum, Units a, Units b) {
        return vbfdotq_f32(sum, vreinterpretq_bf16_u32(a), vreinterpretq_bf16_u32(b));
    }
    static void store_elements(Element* to, Vec value) {
        vst1_u16(to, vreinterpret_u16_bf16(vcvt_bf16_f32(value)));
    }
};
#endif

}  // namespace embellama

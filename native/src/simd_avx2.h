// AVX2 with fused multiply-add: 8 lanes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace embellama {

struct Avx2Float {
    static constexpr bool IS_INT8 = false;
    static constexpr bool KEEPS_HALVES = true;
    static constexpr int LANES = 8;
    static constexpr int ROWS = 6;  // 6 × 2 sums, 2 columns and a value: 15 of 16 registers
    static constexpr int VECTORS = 2;
    static constexpr size_t PER_UNIT = 1;
    using Vec = __m256;
    using Units = __m256;
    using Element = float;

    static Vec zero() { return _mm256_setzero_ps(); }
    static Vec set(float value) { return _mm256_set1_ps(value); }
    static Vec load(const float* from) { return _mm256_loadu_ps(from); }
    static Vec load_f16(const uint16_t* from) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static Vec load_bf16(const uint16_t* from) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
    static void store(float* to, Vec value) { _mm256_storeu_ps(to, value); }
    static Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
    static Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
    static Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
    static Vec round(Vec a) {
        return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    // n from -126 on, a near 1: the exponent is added to as an integer.
    static Vec times_power_of_2(Vec a, Vec n) {
        const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
    }
    static float sum(Vec a) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }
    static float largest(Vec a) {
        __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        half = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
    }

    static Units load_units(const uint32_t* from) {
        return _mm256_loadu_ps(reinterpret_cast<const float*>(from));
    }
    static Units broadcast_unit(const uint32_t* from) {
        return _mm256_broadcast_ss(reinterpret_cast<const float*>(from));
    }
    static Vec dot(Vec sum, Units a, Units b) { return _mm256_fmadd_ps(a, b, sum); }
    static void store_elements(Element* to, Vec value) { _mm256_storeu_ps(to, value); }
};

}  // namespace embellama

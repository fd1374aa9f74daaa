// AVX-512: 16 lanes.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace embellama {

struct Avx512Float {
    static constexpr bool IS_INT8 = false;
    static constexpr bool KEEPS_HALVES = false;
    static constexpr int LANES = 16;
    static constexpr int ROWS = 8;  // 8 × 3 sums, 3 columns and a value: 28 of 32 registers
    static constexpr int VECTORS = 3;
    static constexpr size_t PER_UNIT = 1;
    using Vec = __m512;
    using Units = __m512i;
    using Element = float;

    static Vec zero() { return _mm512_setzero_ps(); }
    static Vec set(float value) { return _mm512_set1_ps(value); }
    static Vec load(const float* from) { return _mm512_loadu_ps(from); }
    static Vec load_f16(const uint16_t* from) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static Vec load_bf16(const uint16_t* from) {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
    static void store(float* to, Vec value) { _mm512_storeu_ps(to, value); }
    static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
    static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
    static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
    static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
    static Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
    static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
    static Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
    static Vec times_power_of_2(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
    static float sum(Vec a) { return _mm512_reduce_add_ps(a); }
    static float largest(Vec a) { return _mm512_reduce_max_ps(a); }

    static Units load_units(const uint32_t* from) { return _mm512_loadu_si512(from); }
    static Units broadcast_unit(const uint32_t* from) { return _mm512_set1_epi32((int)*from); }
    static Vec dot(Vec sum, Units a, Units b) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
    }
    static void store_elements(Element* to, Vec value) { _mm512_storeu_ps(to, value); }
};

#ifdef __AVX512BF16__
struct Avx512Bf16 : Avx512Float {
    static constexpr size_t PER_UNIT = 2;
    using Element = uint16_t;

    static Vec dot(Vec sum, Units a, Units b) {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
    }
    static void store_elements(Element* to, Vec value) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(value));
    }
};
#endif

}  // namespace embellama

// Dot products of bytes on x86: unsigned times signed, four at a time added to 32-bit sums (which
// gemm_int8.h keeps small). Everything else is the instruction set's that they are added to.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace embellama {

#ifdef __AVX512VNNI__
// AVX512_VNNI. `Float` is Avx512Float or Avx512Bf16.
template <class Float>
struct Vnni512 : Float {
    static constexpr bool IS_INT8 = true;
    static constexpr int INT8_ROWS = 4;  // 4 × 3 sums and totals, 3 columns, a value: 28 of 32
    static constexpr int INT8_VECTORS = 3;
    static constexpr int INT8_OFFSET = 128;
    using typename Float::Vec;
    using Sums = __m512i;
    using Bytes = __m512i;

    static Sums no_sums() { return _mm512_setzero_si512(); }
    static Sums load_sums(const uint32_t* from) { return _mm512_loadu_si512(from); }
    static Bytes load_bytes(const uint32_t* from) { return _mm512_loadu_si512(from); }
    static Bytes broadcast_bytes(const uint32_t* from) { return _mm512_set1_epi32((int)*from); }
    static Sums dot_int8(Sums sums, Bytes values, Bytes weights) {
        return _mm512_dpbusd_epi32(sums, values, weights);
    }
    static Vec floats(Sums sums) { return _mm512_cvtepi32_ps(sums); }
    // Rounds to the nearest integers, halves to even ones, and what is beyond a byte to its limits.
    // A byte + 128 is it with its highest bit changed.
    static void store_bytes(uint8_t* to, Vec value) {
        const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(value));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to),
                         _mm_xor_si128(bytes, _mm_set1_epi8((char)INT8_OFFSET)));
    }
};
#endif

// AVX-VNNI, VEX-coded. `Float` is Avx2Float; `Dot` the instruction.
template <class Float, class Dot>
struct Vnni256 : Float {
    static constexpr bool IS_INT8 = true;
    // 5 × 2 sums, 2 columns and a value: 13 of 16 registers. The totals, touched once a block, are
    // left to memory: ten sums cover five cycles of latency at two instructions a cycle.
    static constexpr int INT8_ROWS = 5;
    static constexpr int INT8_VECTORS = 2;
    static constexpr int INT8_OFFSET = 128;
    using typename Float::Vec;
    using Sums = __m256i;
    using Bytes = __m256i;

    static Sums no_sums() { return _mm256_setzero_si256(); }
    static Sums load_sums(const uint32_t* from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    }
    static Bytes load_bytes(const uint32_t* from) { return load_sums(from); }
    static Bytes broadcast_bytes(const uint32_t* from) { return _mm256_set1_epi32((int)*from); }
    static Sums dot_int8(Sums sums, Bytes values, Bytes weights) {
        return Dot::of(sums, values, weights);
    }
    static Vec floats(Sums sums) { return _mm256_cvtepi32_ps(sums); }
    static void store_bytes(uint8_t* to, Vec value) {
        const __m256i wide = _mm256_cvtps_epi32(value);
        const __m128i halves =
            _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
        const __m128i bytes = _mm_packs_epi16(halves, halves);
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to),
                         _mm_xor_si128(bytes, _mm_set1_epi8((char)INT8_OFFSET)));
    }
};

#ifdef __AVXVNNI__
struct VexDot {
    static __m256i of(__m256i sums, __m256i values, __m256i weights) {
        return _mm256_dpbusd_avx_epi32(sums, values, weights);
    }
};
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
// The same in EVEX code, for CPUs that have AVX512_VNNI but not AVX-VNNI.
struct EvexDot {
    static __m256i of(__m256i sums, __m256i values, __m256i weights) {
        return _mm256_dpbusd_epi32(sums, values, weights);
    }
};
#endif

}  // namespace embellama

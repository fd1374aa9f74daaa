#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace embellama {

extern const Kernels kernels_scalar, kernels_scalar_bf16, kernels_scalar_int8;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx2_int8, kernels_avx512, kernels_avx512_bf16,
    kernels_avx512_int8, kernels_avx512_bf16_int8;
#elif defined(__aarch64__)
extern const Kernels kernels_neon, kernels_neon_bf16;
#endif

namespace {

#if defined(__aarch64__)
// Whether there are dot products of bfloat16 (FEAT_BF16); NEON itself is on every 64-bit Arm.
bool has_neon_bf16() {
#if defined(__linux__)
    constexpr unsigned long BF16 = 1UL << 14;  // HWCAP2_BF16. Source: Linux, arm64's asm/hwcap.h
    return (getauxval(AT_HWCAP2) & BF16) != 0;
#elif defined(__APPLE__)
    int32_t found = 0;
    size_t size = sizeof found;
    return sysctlbyname("hw.optional.arm.FEAT_BF16", &found, &size, nullptr, 0) == 0 && found != 0;
#else
    return false;
#endif
}
#endif

#if defined(__x86_64__)
// Conversions of half precision, which every CPU with AVX2 has so far.
// Source: Intel, Software Developer's Manual, CPUID leaf 1, ECX bit 29.
bool has_f16c() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 29)) != 0;
}

// Not every compiler has names for these instructions, so the CPU is asked itself: dot products of
// bytes in VEX code, and those of bfloat16.
// Source: Intel, Architecture Instruction Set Extensions, CPUID leaf 7, sub-leaf 1, EAX bits 4, 5.
[[maybe_unused]] bool has_feature(unsigned bit) {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_max(0, nullptr) < 7) return false;
    __cpuid_count(7, 1, eax, ebx, ecx, edx);
    return (eax & (1U << bit)) != 0;
}
[[maybe_unused]] bool has_avx_vnni() { return has_feature(4); }
[[maybe_unused]] bool has_avx512_bf16() { return has_feature(5); }
#endif

struct Usable {
    const Kernels* list[12];
    size_t n = 0;

    Usable() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        [[maybe_unused]] const bool bf16 = avx512 && has_avx512_bf16();
        [[maybe_unused]] const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
#ifdef EMBELLAMA_AVX512_BF16
        if (bf16) list[n++] = &kernels_avx512_bf16;
#endif
        if (avx512) list[n++] = &kernels_avx512;
#if defined(EMBELLAMA_AVX512_BF16_INT8) && defined(EMBELLAMA_AVX512_INT8)
        if (vnni) list[n++] = bf16 ? &kernels_avx512_bf16_int8 : &kernels_avx512_int8;
#elif defined(EMBELLAMA_AVX512_INT8)
        if (vnni) list[n++] = &kernels_avx512_int8;
#endif
        if (avx2) list[n++] = &kernels_avx2;
#ifdef EMBELLAMA_AVX2_INT8
        if (avx2 && has_avx_vnni()) list[n++] = &kernels_avx2_int8;
#endif
#elif defined(__aarch64__)
#ifdef EMBELLAMA_NEON_BF16
        if (has_neon_bf16()) list[n++] = &kernels_neon_bf16;
#endif
        list[n++] = &kernels_neon;
#endif
        list[n++] = &kernels_scalar;
        list[n++] = &kernels_scalar_bf16;
        list[n++] = &kernels_scalar_int8;
    }
};

}  // namespace

const Kernels* const* usable_kernels(size_t* n_kernels) {
    static const Usable usable;
    *n_kernels = usable.n;
    return usable.list;
}

}  // namespace embellama

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

// Dot products of bytes in VEX code. Compilers from GCC 11 and Clang 12 on know the instructions;
// not all of those know this name, so the CPU is asked itself.
// Source: Intel, Architecture Instruction Set Extensions, CPUID leaf 7, sub-leaf 1, EAX bit 4.
bool has_avx_vnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid_max(0, nullptr) < 7) return false;
    __cpuid_count(7, 1, eax, ebx, ecx, edx);
    return (eax & (1U << 4)) != 0;
}
#endif

struct Usable {
    const Kernels* list[12];
    size_t n = 0;

    Usable() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
        const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
        const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
        if (bf16) list[n++] = &kernels_avx512_bf16;
        if (avx512) list[n++] = &kernels_avx512;
        if (vnni) list[n++] = bf16 ? &kernels_avx512_bf16_int8 : &kernels_avx512_int8;
        if (avx2) list[n++] = &kernels_avx2;
        if (avx2 && has_avx_vnni()) list[n++] = &kernels_avx2_int8;
#elif defined(__aarch64__)
        if (has_neon_bf16()) list[n++] = &kernels_neon_bf16;
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

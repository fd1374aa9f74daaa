#include "kernels.h"

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace embellama {

extern const Kernels kernels_scalar, kernels_scalar_bf16;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16;
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

struct Usable {
    const Kernels* list[8];
    size_t n = 0;

    Usable() {
#if defined(__x86_64__)
        __builtin_cpu_init();
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        if (avx512 && __builtin_cpu_supports("avx512bf16")) list[n++] = &kernels_avx512_bf16;
        if (avx512) list[n++] = &kernels_avx512;
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            list[n++] = &kernels_avx2;
#elif defined(__aarch64__)
        if (has_neon_bf16()) list[n++] = &kernels_neon_bf16;
        list[n++] = &kernels_neon;
#endif
        list[n++] = &kernels_scalar;
        list[n++] = &kernels_scalar_bf16;
    }
};

}  // namespace

const Kernels* const* usable_kernels(size_t* n_kernels) {
    static const Usable usable;
    *n_kernels = usable.n;
    return usable.list;
}

}  // namespace embellama

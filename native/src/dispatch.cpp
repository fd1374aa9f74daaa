#include "kernels.h"

namespace embellama {

extern const Kernels kernels_scalar, kernels_scalar_bf16;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16;
#endif

namespace {

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

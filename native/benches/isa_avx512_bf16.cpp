#include "simd_avx512.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_avx512_bf16;
const TimedKernels timed_avx512_bf16 = timed_kernels_of<Avx512Bf16>("avx512", "bf16");
}  // namespace embellama

#include "simd_avx512.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_avx512;
const TimedKernels timed_avx512 = timed_kernels_of<Avx512Float>("avx512", "f32");
}  // namespace embellama

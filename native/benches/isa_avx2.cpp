#include "simd_avx2.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_avx2;
const TimedKernels timed_avx2 = timed_kernels_of<Avx2Float>("avx2", "f32");
}  // namespace embellama

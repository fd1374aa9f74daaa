#include "simd_neon.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_neon_bf16;
const TimedKernels timed_neon_bf16 = timed_kernels_of<NeonBf16>("neon", "bf16");
}  // namespace embellama

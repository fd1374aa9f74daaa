#include "simd_neon.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_neon;
const TimedKernels timed_neon = timed_kernels_of<NeonFloat>("neon", "f32");
}  // namespace embellama

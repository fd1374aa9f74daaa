#include "simd_avx2.h"
#include "simd_vnni.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_avx2_int8;
const TimedKernels timed_avx2_int8 = timed_kernels_of<Vnni256<Avx2Float, VexDot>>("avx2", "int8");
}  // namespace embellama

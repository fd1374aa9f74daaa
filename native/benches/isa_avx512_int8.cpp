#include "simd_avx512.h"
#include "simd_vnni.h"

#include "steps.h"

namespace embellama {
extern const TimedKernels timed_avx512_int8;
const TimedKernels timed_avx512_int8 = timed_kernels_of<Vnni512<Avx512Float>>("avx512", "int8");
}  // namespace embellama

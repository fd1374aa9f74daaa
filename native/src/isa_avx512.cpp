#include "simd_avx512.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = kernels_of<Avx512Float>("avx512", "f32");
}  // namespace embellama

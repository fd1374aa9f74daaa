#include "simd_avx2.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = kernels_of<Avx2Float>("avx2", "f32");
}  // namespace embellama

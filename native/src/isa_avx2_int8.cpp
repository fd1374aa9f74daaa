#include "simd_avx2.h"
#include "simd_vnni.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_avx2_int8;
const Kernels kernels_avx2_int8 = kernels_of<Vnni256<Avx2Float, VexDot>>("avx2", "int8");
}  // namespace embellama

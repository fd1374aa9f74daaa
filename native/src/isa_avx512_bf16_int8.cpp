#include "simd_avx512.h"
#include "simd_vnni.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_avx512_bf16_int8;
const Kernels kernels_avx512_bf16_int8 = kernels_of<Vnni512<Avx512Bf16>>("avx512", "int8");
}  // namespace embellama

#include "simd_avx512.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_avx512_bf16;
const Kernels kernels_avx512_bf16 = kernels_of<Avx512Bf16>("avx512", "bf16");
}  // namespace embellama

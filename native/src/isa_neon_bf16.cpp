#include "simd_neon.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_neon_bf16;
const Kernels kernels_neon_bf16 = kernels_of<NeonBf16>("neon", "bf16");
}  // namespace embellama

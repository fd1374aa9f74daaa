#include "simd_scalar.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_scalar_bf16;
const Kernels kernels_scalar_bf16 = kernels_of<ScalarBf16>("scalar", "bf16");
}  // namespace embellama

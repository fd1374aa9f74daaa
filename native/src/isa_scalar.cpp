#include "simd_scalar.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_scalar;
const Kernels kernels_scalar = kernels_of<ScalarFloat>("scalar", "f32");
}  // namespace embellama

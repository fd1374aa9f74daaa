#include "simd_scalar_int8.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_scalar_int8;
const Kernels kernels_scalar_int8 = kernels_of<ScalarInt8<ScalarFloat>>("scalar", "int8");
}  // namespace embellama

#include "simd_neon.h"

#include "isa.h"

namespace embellama {
extern const Kernels kernels_neon;
const Kernels kernels_neon = kernels_of<NeonFloat>("neon", "f32");
}  // namespace embellama

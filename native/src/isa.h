// Makes the kernels of an instruction set; each one's file includes this and nothing of the standard
// library that could be shared with code for other CPUs.
#pragma once

#include "forward.h"
#include "kernels.h"

namespace embellama {

template <class Isa>
constexpr Kernels kernels_of(const char* isa, const char* compute_type) {
    return Kernels{isa, compute_type, packing_of<Isa>(), (size_t)Isa::ROWS, run_encoder<Isa>};
}

}  // namespace embellama

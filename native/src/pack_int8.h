// Q8_0 weights into panels of bytes, scales and corrections (int8_layout.h), bit for bit.
#pragma once

#include "model.h"

namespace embellama {

// Whether all of them are Q8_0.
bool can_pack_int8(const std::vector<Tensor>& weights);

// Packs weights of several Q8_0 tensors side by side, each with its own bias where there is one.
// Throws std::bad_alloc.
Linear pack_linear_int8(const Packing& packing, bool is_shifted,
                        const std::vector<Tensor>& weights, const std::vector<Tensor>& biases);

}  // namespace embellama

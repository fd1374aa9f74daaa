// Tensors to a model: checked against the shape, then packed.
#pragma once

#include "embellama_native.h"
#include "kernels.h"

namespace embellama {

// Throws std::invalid_argument that says what does not fit, or std::bad_alloc.
Model build_model(const em_shape& shape, const Kernels& kernels, const em_tensor* tensors,
                  size_t n_tensors);

// Bytes of everything that was packed or copied.
size_t packed_bytes(const Model& model);

}  // namespace embellama

// Weights into panels.
//
// A panel holds PANEL columns of the product (rows of the file's weight). In a panel the units of
// its columns follow each other for the first unit of the inner dimension, then for the second, and
// so on: the order in which a kernel reads them. The last panel may have fewer columns and is as
// much narrower in memory.
#pragma once

#include "model.h"

namespace embellama {

// Packs weights of several tensors side by side, each with its own bias where there is one.
// Throws std::bad_alloc.
Linear pack_linear(const Packing& packing, const std::vector<Tensor>& weights,
                   const std::vector<Tensor>& biases);

}  // namespace embellama

#include "workspace.h"

#include <algorithm>

namespace embellama {

Workspace::Workspace(const Shape& shape, const Packing& packing, size_t n_rows, size_t n_tokens)
    : n_tokens(n_tokens) {
    const size_t step = std::max(packing.lanes, packing.per_unit);
    const size_t padded = (n_tokens + step - 1) / step * step;
    const auto units = [&](size_t n_values) { return n_values / packing.per_unit; };
    rows = Buffer<float>(n_tokens * shape.n_embd);
    operands = Buffer<uint32_t>(units(n_tokens * shape.n_embd));
    qkv = Buffer<uint32_t>(units(n_tokens * 3 * shape.n_embd));
    attended = Buffer<uint32_t>(units(n_tokens * shape.n_embd));
    inner = Buffer<uint32_t>(units(n_tokens * shape.n_ff));
    keys = Buffer<uint32_t>(units(padded * shape.head_size()));
    values = Buffer<uint32_t>(units(padded * shape.head_size()));
    scores = Buffer<float>(n_rows * padded);
    weights = Buffer<uint32_t>(units(n_rows * padded));
}

size_t Workspace::n_bytes() const {
    const size_t n_floats = rows.size() + scores.size();
    const size_t n_units = operands.size() + qkv.size() + attended.size() + inner.size() +
                           keys.size() + values.size() + weights.size();
    return 4 * (n_floats + n_units);
}

}  // namespace embellama

#include "pack.h"

#include <algorithm>

#include "operand.h"

namespace embellama {
namespace {

// Puts one column, given as floats, into its panel.
void put_column(const Packing& packing, size_t column, size_t n_out, const float* values, size_t n_in,
                uint32_t* panels) {
    const size_t n_units = n_in / packing.per_unit;
    const size_t start = column / packing.panel * packing.panel;
    const size_t width = std::min(packing.panel, n_out - start);
    uint32_t* out = panels + start * n_units + (column - start);
    for (size_t unit = 0; unit < n_units; unit++, out += width) {
        if (packing.per_unit == 1) {
            *out = bits_of(values[unit]);
        } else {
            const uint32_t low = to_bf16(values[2 * unit]), high = to_bf16(values[2 * unit + 1]);
            *out = low | high << 16;
        }
    }
}

}  // namespace

Linear pack_linear(const Packing& packing, const std::vector<Tensor>& weights,
                   const std::vector<Tensor>& biases) {
    Linear linear;
    linear.n_in = weights.at(0).n_columns;
    for (const Tensor& weight : weights) linear.n_out += weight.n_rows;
    linear.panels = Buffer<uint32_t>(linear.n_out * (linear.n_in / packing.per_unit));
    linear.bias = Buffer<float>(linear.n_out);
    std::vector<float> values(linear.n_in);
    size_t column = 0;
    for (size_t part = 0; part < weights.size(); part++) {
        const Tensor& weight = weights[part];
        if (biases.at(part)) read_row(biases[part], 0, linear.bias.get() + column);
        for (size_t row = 0; row < weight.n_rows; row++, column++) {
            read_row(weight, row, values.data());
            put_column(packing, column, linear.n_out, values.data(), linear.n_in,
                       linear.panels.get());
        }
    }
    return linear;
}

}  // namespace embellama

#include "pack.h"

#include <algorithm>
#include <cstring>

#include "operand.h"

namespace embellama {
namespace {

// Where a column of a panel starts, and how far apart its units are.
struct Place {
    size_t first;
    size_t width;
};

Place place_of(const Packing& packing, const Linear& linear, size_t column) {
    const size_t start = column / packing.panel * packing.panel;
    return Place{start * (linear.n_in / packing.per_unit) + (column - start),
                 std::min(packing.panel, linear.n_out - start)};
}

// Puts one column, given as floats, into its panel.
void put_column(const Packing& packing, const Place& place, const float* values, size_t n_in,
                uint32_t* panels) {
    uint32_t* out = panels + place.first;
    for (size_t unit = 0; unit < n_in / packing.per_unit; unit++, out += place.width) {
        if (packing.per_unit == 1) {
            *out = bits_of(values[unit]);
        } else {
            const uint32_t low = to_bf16(values[2 * unit]), high = to_bf16(values[2 * unit + 1]);
            *out = low | high << 16;
        }
    }
}

// Puts one column, a row of a tensor of 16 bits, into its panel as it is.
void put_halves(const Place& place, const Tensor& weight, size_t row, uint16_t* halves) {
    const auto* bytes = static_cast<const uint8_t*>(weight.data) + 2 * row * weight.n_columns;
    uint16_t* out = halves + place.first;
    for (size_t i = 0; i < weight.n_columns; i++, out += place.width)
        std::memcpy(out, bytes + 2 * i, sizeof *out);
}

bool are_halves(const Packing& packing, const std::vector<Tensor>& weights) {
    const TensorType type = weights.at(0).type;
    return packing.keeps_halves && (type == TensorType::F16 || type == TensorType::BF16) &&
           std::all_of(weights.begin(), weights.end(),
                       [&](const Tensor& weight) { return weight.type == type; });
}

}  // namespace

Linear pack_linear(const Packing& packing, const std::vector<Tensor>& weights,
                   const std::vector<Tensor>& biases) {
    Linear linear;
    linear.n_in = weights.at(0).n_columns;
    for (const Tensor& weight : weights) linear.n_out += weight.n_rows;
    const bool is_half = are_halves(packing, weights);
    if (is_half) {
        linear.half_type = weights.at(0).type;
        linear.halves = Buffer<uint16_t>(linear.n_out * linear.n_in);
    } else {
        linear.panels = Buffer<uint32_t>(linear.n_out * (linear.n_in / packing.per_unit));
    }
    linear.bias = Buffer<float>(linear.n_out);
    std::vector<float> values(linear.n_in);
    size_t column = 0;
    for (size_t part = 0; part < weights.size(); part++) {
        const Tensor& weight = weights[part];
        if (biases.at(part)) read_row(biases[part], 0, linear.bias.get() + column);
        for (size_t row = 0; row < weight.n_rows; row++, column++) {
            const Place place = place_of(packing, linear, column);
            if (is_half) {
                put_halves(place, weight, row, linear.halves.get());
            } else {
                read_row(weight, row, values.data());
                put_column(packing, place, values.data(), linear.n_in, linear.panels.get());
            }
        }
    }
    return linear;
}

}  // namespace embellama

#include "pack_int8.h"

#include <algorithm>

#include "int8_layout.h"
#include "operand.h"

namespace embellama {
namespace {

// A block of Q8_0: a half-precision scale, then the bytes. Source: block_q8_0 in ggml-common.h.
constexpr size_t Q8_BYTES = 2 + INT8_BLOCK;

// Which column of which panels.
struct Place {
    uint32_t* first;  // the column's first unit in its panel
    size_t width;     // of the panel: as far apart are a column's units
};

Place place_of(const Packing& packing, size_t column, size_t n_blocks, Linear& linear) {
    const size_t start = column / packing.panel * packing.panel;
    return Place{linear.panels.get() + start * n_blocks * INT8_COLUMN_UNITS + (column - start),
                 std::min(packing.panel, linear.n_out - start)};
}

// Puts one column, a row of the file's weight, where it belongs.
void put_column(const uint8_t* block, size_t n_blocks, int offset, bool is_shifted, Place place) {
    uint32_t* out = place.first;
    for (size_t done = 0; done < n_blocks; done++, block += Q8_BYTES) {
        uint16_t half;
        std::memcpy(&half, block, sizeof half);
        const uint8_t* bytes = block + sizeof half;
        int32_t sum = 0;
        for (size_t i = 0; i < INT8_BLOCK; i++) sum += (int8_t)bytes[i];
        for (size_t unit = 0; unit < INT8_BLOCK_UNITS; unit++, out += place.width)
            std::memcpy(out, bytes + 4 * unit, sizeof *out);
        const float scale = from_f16(half);
        *out = bits_of(scale);
        out += place.width;
        *out = is_shifted ? bits_of(scale * (float)sum) : (uint32_t)(-offset * sum);
        out += place.width;
    }
}

}  // namespace

bool can_pack_int8(const std::vector<Tensor>& weights) {
    return std::all_of(weights.begin(), weights.end(), [](const Tensor& weight) {
        return weight.type == TensorType::Q8_0 && weight.n_columns % INT8_BLOCK == 0;
    });
}

Linear pack_linear_int8(const Packing& packing, bool is_shifted,
                            const std::vector<Tensor>& weights,
                            const std::vector<Tensor>& biases) {
    Linear linear;
    linear.n_in = weights.at(0).n_columns;
    for (const Tensor& weight : weights) linear.n_out += weight.n_rows;
    const size_t n_blocks = linear.n_in / INT8_BLOCK;
    linear.panels = Buffer<uint32_t>(linear.n_out * n_blocks * INT8_COLUMN_UNITS);
    linear.bias = Buffer<float>(linear.n_out);
    size_t column = 0;
    for (size_t part = 0; part < weights.size(); part++) {
        const Tensor& weight = weights[part];
        if (biases.at(part)) read_row(biases[part], 0, linear.bias.get() + column);
        const auto* rows = static_cast<const uint8_t*>(weight.data);
        for (size_t row = 0; row < weight.n_rows; row++, column++)
            put_column(rows + row * n_blocks * Q8_BYTES, n_blocks, packing.int8_offset, is_shifted,
                       place_of(packing, column, n_blocks, linear));
    }
    return linear;
}

}  // namespace embellama

#include "build_model.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

#include "pack.h"
#include "pack_int8.h"

namespace embellama {
namespace {

constexpr int64_t MOST = 1 << 24;  // of any width or count: products of two stay far from overflow

void require(bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(what);
}

std::string sizes(int64_t n_rows, int64_t n_columns) {
    return std::to_string(n_rows) + " x " + std::to_string(n_columns);
}

void check_widths(const em_shape& given, const Kernels& kernels) {
    for (const int64_t size : {given.n_layers, given.n_embd, given.n_ff, given.n_heads,
                               given.n_positions, given.n_token_types, given.n_vocab})
        require(size >= 1 && size <= MOST, "a size of the model is " + std::to_string(size));
    require(given.n_embd % given.n_heads == 0,
            "n_embd " + std::to_string(given.n_embd) + " is no multiple of n_heads " +
                std::to_string(given.n_heads));
    const auto step = (int64_t)kernels.packing.step();
    for (const int64_t width : {given.n_embd, given.n_ff, given.n_embd / given.n_heads})
        require(width % step == 0, "a width of " + std::to_string(width) + " is no multiple of " +
                                       std::to_string(step) + ", as " + kernels.isa + " needs");
}

void check_constants(const em_shape& given) {
    const auto is_positive = [](float value) { return std::isfinite(value) && value > 0.0f; };
    require(is_positive(given.norm_eps), "norm_eps is not above 0");
    require(given.position_encoding >= EM_ABSOLUTE && given.position_encoding <= EM_ALIBI,
            "there is no position encoding " + std::to_string(given.position_encoding));
    require(given.activation >= EM_GELU && given.activation <= EM_GEGLU,
            "there is no activation " + std::to_string(given.activation));
    if (given.position_encoding == EM_ROTARY) {
        const int64_t head_size = given.n_embd / given.n_heads;
        require(given.n_rotated >= 2 && given.n_rotated <= head_size && given.n_rotated % 2 == 0,
                "of a head's " + std::to_string(head_size) + " components " +
                    std::to_string(given.n_rotated) + " are rotated, not an even number from 2 on");
        require(is_positive(given.rotary_base), "rotary_base is not above 0");
    }
    if (given.position_encoding == EM_ALIBI)
        require(is_positive(given.alibi_bias), "alibi_bias is not above 0");
}

Shape checked_shape(const em_shape& given, const Kernels& kernels) {
    check_widths(given, kernels);
    check_constants(given);
    Shape shape;
    shape.n_layers = (size_t)given.n_layers;
    shape.n_embd = (size_t)given.n_embd;
    shape.n_ff = (size_t)given.n_ff;
    shape.n_heads = (size_t)given.n_heads;
    shape.n_positions = (size_t)given.n_positions;
    shape.n_token_types = (size_t)given.n_token_types;
    shape.n_vocab = (size_t)given.n_vocab;
    shape.norm_eps = given.norm_eps;
    shape.positions = (Positions)given.position_encoding;
    shape.activation = (Activation)given.activation;
    if (shape.positions == Positions::Rotary) {
        shape.n_rotated = (size_t)given.n_rotated;
        shape.rotary_base = given.rotary_base;
    }
    return shape;
}

// How steeply the scores of each head fall: powers of 2^(-bias / n), n the count of heads or the
// next lower power of 2; for the heads beyond that every other power of the root of it.
// Source: https://arxiv.org/abs/2108.12409 and its published code, `get_slopes`.
Buffer<float> alibi_slopes(size_t n_heads, double bias) {
    size_t n = 1;
    while (2 * n <= n_heads) n *= 2;
    Buffer<float> slopes(n_heads);
    for (size_t head = 0; head < n_heads; head++) {
        const double power = head < n ? (double)(head + 1) : (double)(head - n) + 0.5;
        slopes[head] = (float)std::exp2(-bias * power / (double)n);
    }
    return slopes;
}

// Takes tensors by their place, and checks each.
class Reader {
public:
    Reader(const em_tensor* tensors, size_t n_tensors) : tensors_(tensors), n_(n_tensors) {}

    bool has(size_t place) const { return place < n_ && tensors_[place].data != nullptr; }

    Tensor take(size_t place, size_t n_rows, size_t n_columns, bool may_lack = false) const {
        require(place < n_, "tensor " + std::to_string(place) + " is missing");
        const em_tensor& given = tensors_[place];
        const std::string name = "tensor " + std::to_string(place);
        if (given.data == nullptr) {
            require(may_lack, name + " is missing");
            return Tensor{};
        }
        const auto type = (TensorType)given.type;
        require(is_supported(type), name + " has type " + std::to_string(given.type));
        require(given.n_rows == (int64_t)n_rows && given.n_columns == (int64_t)n_columns,
                name + " is " + sizes(given.n_rows, given.n_columns) + " and has to be " +
                    sizes((int64_t)n_rows, (int64_t)n_columns));
        require(bytes_of(type, n_rows, n_columns) > 0, name + " has rows of broken blocks");
        return Tensor{given.data, type, n_rows, n_columns};
    }

private:
    const em_tensor* tensors_;
    size_t n_;
};

Buffer<float> floats_of(const Tensor& tensor) {
    Buffer<float> out(tensor.n_rows * tensor.n_columns);
    for (size_t row = 0; row < tensor.n_rows; row++)
        read_row(tensor, row, out.get() + row * tensor.n_columns);
    return out;
}

Norm norm_at(const Reader& reader, size_t place, size_t n_embd, bool may_lack_shift = false) {
    const Tensor shift = reader.take(place + 1, 1, n_embd, may_lack_shift);
    return Norm{floats_of(reader.take(place, 1, n_embd)),
                shift ? floats_of(shift) : Buffer<float>(n_embd)};
}

// Packs weights side by side as the kernels multiply them. Operands of queries, keys and values are
// shifted where they are bytes (linear.h).
Linear linear_of(const Packing& packing, bool is_shifted, const std::vector<Tensor>& weights,
                 const std::vector<Tensor>& biases) {
    if (!packing.is_int8) return pack_linear(packing, weights, biases);
    require(can_pack_int8(weights), "a layer's weight is not Q8_0, which bytes are packed from");
    return pack_linear_int8(packing, is_shifted, weights, biases);
}

Layer layer_at(const Reader& reader, size_t start, const Shape& shape, const Packing& packing) {
    const size_t n_embd = shape.n_embd, n_ff = shape.n_ff;
    const auto weight = [&](size_t place, size_t n_out, size_t n_in) {
        return reader.take(start + place, n_out, n_in);
    };
    const auto bias = [&](size_t place, size_t n_out) {
        return reader.take(start + place, 1, n_out, true);
    };
    require(reader.has(start + EM_Q_NORM) == shape.has_query_norms &&
                reader.has(start + EM_ATTENTION_NORM_2) == shape.has_second_norm,
            "some layers have norms that the first has not, or lack them");
    Layer layer;
    layer.qkv = linear_of(
        packing, true,
        {weight(EM_Q, n_embd, n_embd), weight(EM_K, n_embd, n_embd), weight(EM_V, n_embd, n_embd)},
        {bias(EM_Q_BIAS, n_embd), bias(EM_K_BIAS, n_embd), bias(EM_V_BIAS, n_embd)});
    layer.out = linear_of(packing, false, {weight(EM_OUT, n_embd, n_embd)}, {bias(EM_OUT_BIAS, n_embd)});
    layer.attention_norm = norm_at(reader, start + EM_ATTENTION_NORM, n_embd);
    if (shape.has_query_norms) {
        layer.query_norm = norm_at(reader, start + EM_Q_NORM, n_embd, true);
        layer.key_norm = norm_at(reader, start + EM_K_NORM, n_embd, true);
    }
    if (shape.has_second_norm)
        layer.attention_norm_2 = norm_at(reader, start + EM_ATTENTION_NORM_2, n_embd, true);
    if (shape.is_gated())
        layer.gate = linear_of(packing, false, {weight(EM_GATE, n_ff, n_embd)},
                                 {bias(EM_GATE_BIAS, n_ff)});
    layer.up = linear_of(packing, false, {weight(EM_UP, n_ff, n_embd)}, {bias(EM_UP_BIAS, n_ff)});
    layer.down = linear_of(packing, false, {weight(EM_DOWN, n_embd, n_ff)}, {bias(EM_DOWN_BIAS, n_embd)});
    layer.output_norm = norm_at(reader, start + EM_OUTPUT_NORM, n_embd);
    return layer;
}

std::array<const Linear*, 5> linears_of(const Layer& layer) {
    return {&layer.qkv, &layer.out, &layer.gate, &layer.up, &layer.down};
}

size_t bytes_of_linear(const Linear& linear) {
    return 4 * (linear.panels.size() + linear.bias.size()) + 2 * linear.halves.size();
}

size_t bytes_of_norm(const Norm& norm) { return 4 * (norm.scale.size() + norm.shift.size()); }

}  // namespace

Model build_model(const em_shape& given, const Kernels& kernels, const em_tensor* tensors,
                  size_t n_tensors) {
    const Reader reader(tensors, n_tensors);
    Shape shape = checked_shape(given, kernels);
    shape.has_query_norms = reader.has(EM_N_MODEL_TENSORS + EM_Q_NORM);
    shape.has_second_norm = reader.has(EM_N_MODEL_TENSORS + EM_ATTENTION_NORM_2);
    Model model;
    model.shape = shape;
    model.tokens = reader.take(EM_TOKENS, shape.n_vocab, shape.n_embd);
    if (shape.positions == Positions::Absolute)
        model.positions = floats_of(reader.take(EM_POSITIONS, shape.n_positions, shape.n_embd));
    if (shape.positions == Positions::Alibi)
        model.slopes = alibi_slopes(shape.n_heads, given.alibi_bias);
    const Tensor types = reader.take(EM_TOKEN_TYPES, shape.n_token_types, shape.n_embd, true);
    model.token_types =
        types ? floats_of(types) : Buffer<float>(shape.n_token_types * shape.n_embd);
    model.embedding_norm = norm_at(reader, EM_NORM, shape.n_embd);
    for (size_t layer = 0; layer < shape.n_layers; layer++)
        model.layers.push_back(layer_at(reader, EM_N_MODEL_TENSORS + layer * EM_N_LAYER_TENSORS,
                                        shape, kernels.packing));
    for (const Layer& layer : model.layers)
        for (const Linear* linear : linears_of(layer))
            model.shape.has_halves |= linear->halves.size() > 0;
    return model;
}

size_t packed_bytes(const Model& model) {
    size_t n = 4 * (model.positions.size() + model.slopes.size() + model.token_types.size());
    n += bytes_of_norm(model.embedding_norm);
    for (const Layer& layer : model.layers) {
        for (const Linear* linear : linears_of(layer)) n += bytes_of_linear(*linear);
        for (const Norm* norm : {&layer.query_norm, &layer.key_norm, &layer.attention_norm,
                                 &layer.attention_norm_2, &layer.output_norm})
            n += bytes_of_norm(*norm);
    }
    return n;
}

}  // namespace embellama

#include "build_model.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "pack.h"

namespace embellama {
namespace {

constexpr int64_t MOST = 1 << 24;  // of any width or count: products of two stay far from overflow

void require(bool holds, const std::string& what) {
    if (!holds) throw std::invalid_argument(what);
}

std::string sizes(int64_t n_rows, int64_t n_columns) {
    return std::to_string(n_rows) + " x " + std::to_string(n_columns);
}

Shape checked_shape(const em_shape& given, const Kernels& kernels) {
    for (const int64_t size : {given.n_layers, given.n_embd, given.n_ff, given.n_heads,
                               given.n_positions, given.n_token_types, given.n_vocab})
        require(size >= 1 && size <= MOST, "a size of the model is " + std::to_string(size));
    require(given.n_embd % given.n_heads == 0,
            "n_embd " + std::to_string(given.n_embd) + " is no multiple of n_heads " +
                std::to_string(given.n_heads));
    require(std::isfinite(given.norm_eps) && given.norm_eps > 0.0f, "norm_eps is not above 0");
    const auto step = (int64_t)std::max(kernels.packing.lanes, kernels.packing.per_unit);
    for (const int64_t width : {given.n_embd, given.n_ff, given.n_embd / given.n_heads})
        require(width % step == 0, "a width of " + std::to_string(width) + " is no multiple of " +
                                       std::to_string(step) + ", as " + kernels.isa + " needs");
    return Shape{(size_t)given.n_layers, (size_t)given.n_embd,      (size_t)given.n_ff,
                 (size_t)given.n_heads,  (size_t)given.n_positions, (size_t)given.n_token_types,
                 (size_t)given.n_vocab,  given.norm_eps};
}

// Takes tensors by their place, and checks each.
class Reader {
public:
    Reader(const em_tensor* tensors, size_t n_tensors) : tensors_(tensors), n_(n_tensors) {}

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

Norm norm_at(const Reader& reader, size_t place, size_t n_embd) {
    return Norm{floats_of(reader.take(place, 1, n_embd)),
                floats_of(reader.take(place + 1, 1, n_embd))};
}

Layer layer_at(const Reader& reader, size_t start, const Shape& shape, const Packing& packing) {
    const size_t n_embd = shape.n_embd, n_ff = shape.n_ff;
    const auto weight = [&](size_t place, size_t n_out, size_t n_in) {
        return reader.take(start + place, n_out, n_in);
    };
    const auto bias = [&](size_t place, size_t n_out) {
        return reader.take(start + place, 1, n_out, true);
    };
    Layer layer;
    layer.qkv = pack_linear(
        packing,
        {weight(EM_Q, n_embd, n_embd), weight(EM_K, n_embd, n_embd), weight(EM_V, n_embd, n_embd)},
        {bias(EM_Q_BIAS, n_embd), bias(EM_K_BIAS, n_embd), bias(EM_V_BIAS, n_embd)});
    layer.out = pack_linear(packing, {weight(EM_OUT, n_embd, n_embd)}, {bias(EM_OUT_BIAS, n_embd)});
    layer.attention_norm = norm_at(reader, start + EM_ATTENTION_NORM, n_embd);
    layer.up = pack_linear(packing, {weight(EM_UP, n_ff, n_embd)}, {bias(EM_UP_BIAS, n_ff)});
    layer.down = pack_linear(packing, {weight(EM_DOWN, n_embd, n_ff)}, {bias(EM_DOWN_BIAS, n_embd)});
    layer.output_norm = norm_at(reader, start + EM_OUTPUT_NORM, n_embd);
    return layer;
}

size_t bytes_of_linear(const Linear& linear) {
    return 4 * (linear.panels.size() + linear.bias.size());
}

size_t bytes_of_norm(const Norm& norm) { return 4 * (norm.scale.size() + norm.shift.size()); }

}  // namespace

Model build_model(const em_shape& given, const Kernels& kernels, const em_tensor* tensors,
                  size_t n_tensors) {
    const Shape shape = checked_shape(given, kernels);
    const Reader reader(tensors, n_tensors);
    Model model;
    model.shape = shape;
    model.tokens = reader.take(EM_TOKENS, shape.n_vocab, shape.n_embd);
    model.positions = floats_of(reader.take(EM_POSITIONS, shape.n_positions, shape.n_embd));
    model.token_types = floats_of(reader.take(EM_TOKEN_TYPES, shape.n_token_types, shape.n_embd));
    model.embedding_norm = norm_at(reader, EM_NORM, shape.n_embd);
    for (size_t layer = 0; layer < shape.n_layers; layer++)
        model.layers.push_back(layer_at(reader, EM_N_MODEL_TENSORS + layer * EM_N_LAYER_TENSORS,
                                        shape, kernels.packing));
    return model;
}

size_t packed_bytes(const Model& model) {
    size_t n = 4 * (model.positions.size() + model.token_types.size());
    n += bytes_of_norm(model.embedding_norm);
    for (const Layer& layer : model.layers) {
        for (const Linear* linear : {&layer.qkv, &layer.out, &layer.up, &layer.down})
            n += bytes_of_linear(*linear);
        n += bytes_of_norm(layer.attention_norm) + bytes_of_norm(layer.output_norm);
    }
    return n;
}

}  // namespace embellama

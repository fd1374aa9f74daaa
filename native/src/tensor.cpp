#include "tensor.h"

#include <cstring>

#include "operand.h"

namespace embellama {
namespace {

// A block of Q8_0: a half-precision scale and as many signed bytes. Source: ggml-common.h.
constexpr size_t Q8_VALUES = 32;
constexpr size_t Q8_BYTES = 2 + Q8_VALUES;

void read_q8(const uint8_t* block, size_t n_values, float* out) {
    for (size_t start = 0; start < n_values; start += Q8_VALUES, block += Q8_BYTES) {
        uint16_t half;
        std::memcpy(&half, block, sizeof half);
        const float scale = from_f16(half);
        for (size_t i = 0; i < Q8_VALUES; i++)
            out[start + i] = scale * (float)(int8_t)block[sizeof half + i];
    }
}

}  // namespace

bool is_supported(TensorType type) {
    return type == TensorType::F32 || type == TensorType::F16 || type == TensorType::BF16 ||
           type == TensorType::Q8_0;
}

size_t bytes_of(TensorType type, size_t n_rows, size_t n_columns) {
    switch (type) {
        case TensorType::F32: return n_rows * n_columns * 4;
        case TensorType::F16:
        case TensorType::BF16: return n_rows * n_columns * 2;
        case TensorType::Q8_0:
            return n_columns % Q8_VALUES ? 0 : n_rows * (n_columns / Q8_VALUES) * Q8_BYTES;
    }
    return 0;
}

void read_row(const Tensor& tensor, size_t row, float* out) {
    const size_t n = tensor.n_columns;
    const auto* bytes = static_cast<const uint8_t*>(tensor.data) + row * bytes_of(tensor.type, 1, n);
    switch (tensor.type) {
        case TensorType::F32: std::memcpy(out, bytes, n * sizeof(float)); break;
        case TensorType::F16:
        case TensorType::BF16: {
            const bool is_half = tensor.type == TensorType::F16;
            for (size_t i = 0; i < n; i++) {
                uint16_t value;  // the file aligns tensors, not necessarily to their type
                std::memcpy(&value, bytes + 2 * i, sizeof value);
                out[i] = is_half ? from_f16(value) : from_bf16(value);
            }
            break;
        }
        case TensorType::Q8_0: read_q8(bytes, n, out); break;
    }
}

}  // namespace embellama

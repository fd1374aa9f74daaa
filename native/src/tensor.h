// A weight as it lies in a GGUF file: read row by row, never written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace embellama {

// The numbers are those of `enum ggml_type` in ggml.h.
enum class TensorType : int32_t { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };

struct Tensor {
    const void* data = nullptr;  // not owned
    TensorType type = TensorType::F32;
    size_t n_rows = 0;
    size_t n_columns = 0;  // values of a row, one after the other in memory

    explicit operator bool() const { return data != nullptr; }
};

bool is_supported(TensorType type);

// Bytes of a tensor's data; 0 if its rows cannot be divided into the type's blocks.
size_t bytes_of(TensorType type, size_t n_rows, size_t n_columns);

// Writes one row as floats.
void read_row(const Tensor& tensor, size_t row, float* out);

}  // namespace embellama

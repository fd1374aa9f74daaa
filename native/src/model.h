// An encoder of the BERT family: its widths, and its weights in the order in which kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "tensor.h"

namespace embellama {

enum class Pooling : int32_t { None = 0, Mean = 1, Cls = 2, Last = 3 };

// Widths and constants of a model.
struct Shape {
    size_t n_layers = 0;
    size_t n_embd = 0;      // of a token row
    size_t n_ff = 0;        // inside the feed-forward block
    size_t n_heads = 0;
    size_t n_positions = 0;
    size_t n_token_types = 0;
    size_t n_vocab = 0;
    float norm_eps = 1e-12f;

    size_t head_size() const { return n_embd / n_heads; }
};

// How kernels want weights packed.
struct Packing {
    size_t panel = 0;     // columns of a panel
    size_t lanes = 0;     // columns of a vector; those of the last panel are a multiple
    size_t per_unit = 0;  // values in a 32-bit unit: 1 float, 2 bfloat16
};

// y = x · weightsᵀ + bias, packed.
struct Linear {
    size_t n_in = 0;
    size_t n_out = 0;
    Buffer<uint32_t> panels;  // see pack.h
    Buffer<float> bias;       // n_out
};

struct Norm {
    Buffer<float> scale;  // n_embd
    Buffer<float> shift;  // n_embd
};

struct Layer {
    Linear qkv;     // queries, keys and values side by side: n_embd → 3 × n_embd
    Linear out;     // n_embd → n_embd
    Norm attention_norm;
    Linear up;      // n_embd → n_ff
    Linear down;    // n_ff → n_embd
    Norm output_norm;
};

struct Model {
    Shape shape;
    Tensor tokens;             // (n_vocab, n_embd), in the file
    Buffer<float> positions;   // (n_positions, n_embd)
    Buffer<float> token_types; // (n_token_types, n_embd)
    Norm embedding_norm;
    std::vector<Layer> layers;
};

}  // namespace embellama

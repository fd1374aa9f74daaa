// An encoder of the BERT family: its widths, and its weights in the order in which kernels read them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "tensor.h"

namespace embellama {

enum class Pooling : int32_t { None = 0, Mean = 1, Cls = 2, Last = 3 };
enum class Positions : int32_t { Absolute = 0, Rotary = 1, Alibi = 2 };
enum class Activation : int32_t { Gelu = 0, Swiglu = 1, Geglu = 2 };

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
    Positions positions = Positions::Absolute;
    Activation activation = Activation::Gelu;
    size_t n_rotated = 0;        // of a head's components; 0 unless positions are rotary
    float rotary_base = 10000.0f;
    bool has_query_norms = false;   // queries and keys are normalised, whole rows of them
    bool has_second_norm = false;   // attention's input is added again and normalised again
    bool has_halves = false;        // some weights are packed in 16 bits

    size_t head_size() const { return n_embd / n_heads; }
    bool is_gated() const { return activation != Activation::Gelu; }
    // Whether queries and keys have steps between their product and attention.
    bool finishes_queries() const { return n_rotated > 0 || has_query_norms; }
};

// How kernels want weights packed.
struct Packing {
    size_t panel = 0;     // columns of a panel
    size_t lanes = 0;     // columns of a vector; those of the last panel are a multiple
    size_t per_unit = 0;  // values in a 32-bit unit: 1 float, 2 bfloat16; of attention, for int8
    bool keeps_halves = false;  // whether weights of 16 bits are kept so, in float32 kernels
    bool is_int8 = false; // whether the layers' weights are bytes
    int int8_offset = 0;  // of an operand's bytes; see int8_layout.h

    // What is between the products of a feed-forward block is made so many columns at a time: whole
    // blocks of bytes, and whole panels of any kernel that has bytes.
    constexpr size_t inner_width() const { return is_int8 ? 96 : panel; }
    // What widths have to be multiples of.
    constexpr size_t step() const {
        return is_int8 ? 32 : lanes > per_unit ? lanes : per_unit;
    }
};

// y = x · weightsᵀ + bias, packed. Some float32 kernels keep weights of 16 bits as they are, in half the memory,
// and unpack one panel at a time. With AVX2 that makes a single short text a fifth faster, since the
// weights come through the caches; with AVX-512 and its wider panels it makes it a fifth slower.
struct Linear {
    size_t n_in = 0;
    size_t n_out = 0;
    Buffer<uint32_t> panels;  // see pack.h, pack_int8.h; empty where there are halves
    Buffer<uint16_t> halves;  // the same with 16 bits for each unit
    TensorType half_type = TensorType::F16;  // or BF16: of halves
    Buffer<float> bias;       // n_out
};

struct Norm {
    Buffer<float> scale;  // n_embd
    Buffer<float> shift;  // n_embd
};

struct Layer {
    Linear qkv;     // queries, keys and values side by side: n_embd → 3 × n_embd
    Norm query_norm, key_norm;     // empty where the shape has none
    Linear out;     // n_embd → n_embd
    Norm attention_norm;
    Norm attention_norm_2;         // the same
    Linear gate;    // n_embd → n_ff; empty unless gated
    Linear up;      // n_embd → n_ff
    Linear down;    // n_ff → n_embd
    Norm output_norm;
};

struct Model {
    Shape shape;
    Tensor tokens;             // (n_vocab, n_embd), in the file
    Buffer<float> positions;   // (n_positions, n_embd); empty unless positions are absolute
    Buffer<float> slopes;      // n_heads; empty unless positions are ALiBi
    Buffer<float> token_types; // (n_token_types, n_embd)
    Norm embedding_norm;
    std::vector<Layer> layers;
};

}  // namespace embellama

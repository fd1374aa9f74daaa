// Models of random weights for programs that test the kernels through the plain C interface.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "embellama_native.h"

namespace tiny {

// Numbers of `enum ggml_type`; see em_tensor.
enum Type : int32_t { F32 = 0, F16 = 1, Q8_0 = 8, BF16 = 30 };

enum class Weights { Calm, Huge, AnyBits };

// The same numbers on every machine. Source: Marsaglia, "Xorshift RNGs", 2003.
struct Numbers {
    uint64_t state;

    explicit Numbers(uint64_t seed) : state(seed * 2 + 1) {
        for (int i = 0; i < 8; i++) next();
    }
    uint32_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return (uint32_t)(state >> 32);
    }
    uint32_t below(uint32_t n) { return next() % n; }
};

struct Size {
    int64_t n_rows = 0, n_columns = 0;  // 0: such models have no such tensor
};

[[noreturn]] inline void fail(const char* what, const char* message = "") {
    std::fprintf(stderr, "FAILED: %s %s\n", what, message);
    std::abort();
}

// The size that the tensor at a place of em_model_new's list has to have.
inline Size size_at(const em_shape& shape, size_t place) {
    switch (place) {
        case EM_TOKENS: return {shape.n_vocab, shape.n_embd};
        case EM_POSITIONS: return {shape.n_positions, shape.n_embd};
        case EM_TOKEN_TYPES: return {shape.n_token_types, shape.n_embd};
        case EM_NORM:
        case EM_NORM_BIAS: return {1, shape.n_embd};
        default: break;
    }
    if (place < EM_N_MODEL_TENSORS) return {};
    switch ((place - EM_N_MODEL_TENSORS) % EM_N_LAYER_TENSORS) {
        case EM_Q:
        case EM_K:
        case EM_V:
        case EM_OUT: return {shape.n_embd, shape.n_embd};
        case EM_GATE:
        case EM_UP: return {shape.n_ff, shape.n_embd};
        case EM_GATE_BIAS:
        case EM_UP_BIAS: return {1, shape.n_ff};
        case EM_DOWN: return {shape.n_embd, shape.n_ff};
        case EM_Q_BIAS:
        case EM_K_BIAS:
        case EM_V_BIAS:
        case EM_OUT_BIAS:
        case EM_DOWN_BIAS:
        case EM_ATTENTION_NORM:
        case EM_ATTENTION_NORM_BIAS:
        case EM_Q_NORM:
        case EM_Q_NORM_BIAS:
        case EM_K_NORM:
        case EM_K_NORM_BIAS:
        case EM_ATTENTION_NORM_2:
        case EM_ATTENTION_NORM_2_BIAS:
        case EM_OUTPUT_NORM:
        case EM_OUTPUT_NORM_BIAS: return {1, shape.n_embd};
        default: return {};
    }
}

inline size_t bytes_of(int32_t type, Size size) {
    const auto n = (size_t)(size.n_rows * size.n_columns);
    if (type == Q8_0) return (size_t)size.n_rows * (size_t)((size.n_columns + 31) / 32) * 34;
    return type == F16 || type == BF16 ? 2 * n : 4 * n;
}

// Bits of one 16- or 32-bit number, up to 1/8 if calm.
inline uint32_t number_of(int32_t type, Weights weights, Numbers& numbers) {
    const uint32_t bits = numbers.next();
    if (weights == Weights::AnyBits) return bits;
    const bool huge = weights == Weights::Huge;
    if (type == F16) return (bits & 0x83ff) | (huge ? 30 : 8 + bits / 65536 % 4) << 10;
    return (bits & 0x807fffff) | (huge ? 254 : 120 + (bits >> 16) % 4) << 23;
}

inline void fill(uint8_t* out, size_t n_bytes, int32_t type, Weights weights, Numbers& numbers) {
    if (type == Q8_0) {
        for (size_t at = 0; at < n_bytes; at++) out[at] = (uint8_t)numbers.next();
        // a scale of 2^-11 or 65504
        const uint16_t scale = weights == Weights::Huge ? 0x7bff : 0x1000;
        if (weights != Weights::AnyBits)
            for (size_t at = 0; at + 34 <= n_bytes; at += 34) std::memcpy(out + at, &scale, 2);
        return;
    }
    const size_t step = type == F16 || type == BF16 ? 2 : 4;
    for (size_t at = 0; at + step <= n_bytes; at += step) {
        const uint32_t bits = number_of(type, weights, numbers);
        const auto half = (uint16_t)(type == BF16 ? bits >> 16 : bits);
        std::memcpy(out + at, step == 2 ? (const void*)&half : (const void*)&bits, step);
    }
}

// What em_model_new takes. Each tensor's data is an allocation of its own that ends where the
// tensor does, so that AddressSanitizer sees whatever is read beyond; it may begin at an odd
// address.
struct Tensors {
    em_shape shape{};
    std::vector<em_tensor> list;
    std::vector<std::unique_ptr<uint8_t[]>> data;

    void add(int32_t type, Size size, Weights weights, size_t shift, Numbers& numbers) {
        const size_t n_bytes = bytes_of(type, size);
        auto bytes = std::make_unique<uint8_t[]>(shift + n_bytes);
        fill(bytes.get() + shift, n_bytes, type, weights, numbers);
        list.push_back({bytes.get() + shift, type, size.n_rows, size.n_columns});
        data.push_back(std::move(bytes));
    }
    void add_none() {
        list.push_back({nullptr, 0, 0, 0});
        data.emplace_back();
    }
    // Takes the last tensor from the end and puts it in another's place.
    void put_last_at(size_t place) {
        list[place] = list.back();
        data[place] = std::move(data.back());
        list.pop_back();
        data.pop_back();
    }
    size_t n_needed() const {
        return EM_N_MODEL_TENSORS + (size_t)shape.n_layers * EM_N_LAYER_TENSORS;
    }
    // Frees what the interface promises not to read after em_model_new.
    void free_what_was_packed() {
        for (size_t place = 0; place < data.size(); place++)
            if (place != EM_TOKENS) data[place].reset();
    }
};

// A type that rows of so many columns can have.
inline int32_t any_type(int64_t n_columns, Numbers& numbers) {
    static const int32_t types[] = {F32, F16, BF16, Q8_0};
    return types[numbers.below(n_columns % 32 == 0 ? 4 : 3)];
}

// What a model may have or lack, whatever its shape.
struct Extras {
    bool query_norms, second_norm, biases;
};

inline bool has_tensor(const em_shape& shape, const Extras& extras, size_t place) {
    if (place == EM_POSITIONS) return shape.position_encoding == EM_ABSOLUTE;
    if (place < EM_N_MODEL_TENSORS) return true;
    switch ((place - EM_N_MODEL_TENSORS) % EM_N_LAYER_TENSORS) {
        case EM_GATE:
        case EM_GATE_BIAS: return shape.activation != EM_GELU;
        case EM_Q_NORM:
        case EM_Q_NORM_BIAS:
        case EM_K_NORM:
        case EM_K_NORM_BIAS: return extras.query_norms;
        case EM_ATTENTION_NORM_2:
        case EM_ATTENTION_NORM_2_BIAS: return extras.second_norm;
        case EM_Q_BIAS:
        case EM_K_BIAS:
        case EM_V_BIAS:
        case EM_OUT_BIAS:
        case EM_UP_BIAS:
        case EM_DOWN_BIAS: return extras.biases;
        default: return true;
    }
}

inline bool multiplies_bytes(int32_t kernel) {
    const char* type = em_kernel_compute_type(kernel);
    return type != nullptr && std::strcmp(type, "int8") == 0;
}

// Whether a place has what a layer multiplies: what kernels of bytes take as Q8_0 alone.
inline bool is_multiplied(const em_shape& shape, size_t place) {
    return place >= EM_N_MODEL_TENSORS && size_at(shape, place).n_rows > 1;
}

// All the tensors of a shape, as they have to be for a kernel.
inline Tensors right_tensors(const em_shape& shape, int32_t kernel, Weights weights,
                             Numbers& numbers) {
    const Extras extras{numbers.below(3) == 0, numbers.below(3) == 0, numbers.below(3) > 0};
    const bool needs_bytes = multiplies_bytes(kernel);
    Tensors tensors;
    tensors.shape = shape;
    for (size_t place = 0; place < tensors.n_needed(); place++) {
        const Size size = size_at(shape, place);
        if (!has_tensor(shape, extras, place)) {
            tensors.add_none();
            continue;
        }
        const int32_t type = needs_bytes && is_multiplied(shape, place)
                                 ? Q8_0
                                 : any_type(size.n_columns, numbers);
        tensors.add(type, size, weights, numbers.below(4), numbers);
    }
    return tensors;
}

// A small shape that a kernel takes: heads of whole vectors, of whole pairs for bfloat16, and of
// whole blocks for bytes.
inline em_shape small_shape(int32_t kernel, Numbers& numbers) {
    const int64_t lanes = em_kernel_lanes(kernel), step = lanes < 2 ? 2 : lanes;
    em_shape shape{};
    shape.n_layers = 1 + numbers.below(2);
    shape.n_heads = 1 + numbers.below(3);
    shape.n_embd = shape.n_heads * step * (1 + numbers.below(3));
    shape.n_ff = step * (1 + numbers.below(5));
    shape.n_positions = 1 + numbers.below(40);
    shape.n_token_types = 1 + numbers.below(3);
    shape.n_vocab = 1 + numbers.below(50);
    shape.norm_eps = 1e-12f;
    shape.position_encoding = (int32_t)numbers.below(3);
    shape.activation = (int32_t)numbers.below(3);
    shape.n_rotated = 2 + 2 * numbers.below((uint32_t)(shape.n_embd / shape.n_heads / 2));
    shape.rotary_base = 10000.0f;
    shape.alibi_bias = 8.0f;
    return shape;
}

// Sequences laid end to end, as em_encode takes them.
struct Batch {
    std::vector<int32_t> ids, types, offsets{0};

    int64_t n_sequences() const { return (int64_t)offsets.size() - 1; }
    int64_t n_tokens() const { return offsets.back(); }
    int64_t n_rows(int32_t pooling) const { return pooling == 0 ? n_tokens() : n_sequences(); }
};

inline Batch right_batch(const em_shape& shape, int64_t most_tokens, Numbers& numbers) {
    Batch batch;
    const uint32_t n_sequences = 1 + numbers.below(5);
    for (uint32_t sequence = 0; sequence < n_sequences; sequence++) {
        const int64_t n_tokens = 1 + numbers.below((uint32_t)shape.n_positions);
        if (batch.n_tokens() + n_tokens > most_tokens) break;
        batch.offsets.push_back((int32_t)(batch.n_tokens() + n_tokens));
    }
    if (batch.n_sequences() == 0) batch.offsets.push_back(1);
    for (int64_t token = 0; token < batch.n_tokens(); token++) {
        batch.ids.push_back((int32_t)numbers.below((uint32_t)shape.n_vocab));
        batch.types.push_back((int32_t)numbers.below((uint32_t)shape.n_token_types));
    }
    return batch;
}

}  // namespace tiny

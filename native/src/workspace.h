// What a forward pass reads and writes, beside the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "buffer.h"
#include "model.h"

namespace embellama {

// Sequences laid end to end; checked by whoever makes it.
struct Batch {
    const int32_t* ids = nullptr;      // offsets[n_sequences]
    const int32_t* types = nullptr;    // parallel to ids; null: all 0
    const int32_t* offsets = nullptr;  // n_sequences + 1
    size_t n_sequences = 0;

    size_t n_tokens() const { return (size_t)offsets[n_sequences]; }
};

// What one thread needs for itself.
struct Room {
    Buffer<uint32_t> keys;     // of attention: see attention.h
    Buffer<uint32_t> values;
    Buffer<float> scores;
    Buffer<uint32_t> weights;
    Buffer<float> made;        // n_tokens × inner_width, unless operands are made at once
    Buffer<uint32_t> panel;    // of a layer, where weights are packed in 16 bits
};

// Room for micro-batches of up to `n_tokens` tokens. Used by one micro-batch at a time.
struct Workspace {
    // Throws std::bad_alloc.
    Workspace(const Shape& shape, const Packing& packing, size_t n_rows, size_t n_tokens,
              size_t n_threads = 1);

    // Makes rooms for that many threads. Throws std::bad_alloc, and is as it was then.
    void make_rooms(size_t n_threads);

    size_t n_tokens;
    std::vector<Room> rooms;    // one for each thread, at least one
    Buffer<float> rows;         // n_tokens × n_embd: the residual stream
    Buffer<uint32_t> operands;  // the same, as an operand
    Buffer<uint32_t> qkv;       // n_tokens × 3 n_embd
    Buffer<uint32_t> attended;  // n_tokens × n_embd; floats where operands are bytes
    Buffer<uint32_t> inner;     // n_tokens × n_ff
    // Empty where the shape or the packing has no use for them:
    Buffer<float> scales, shifts;  // of operands: see int8_layout.h
    Buffer<float> inner_scales;
    Buffer<float> unfinished;   // n_tokens × 2 n_embd: queries and keys before they are operands
    Buffer<float> rotations;    // n_tokens × n_rotated: a position's cosines, then its sines
    Buffer<float> distances;    // −|i| for i from −n_tokens to n_tokens, padded
    Buffer<float> kept;         // n_tokens × n_embd: the input of attention

    template <class Element>
    Element* elements(Buffer<uint32_t>& units) {
        return reinterpret_cast<Element*>(units.get());
    }

    size_t n_bytes() const;

private:
    Shape shape_;
    Packing packing_;
    size_t n_rows_;  // of a tile
};

}  // namespace embellama

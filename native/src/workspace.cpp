#include "workspace.h"

#include <algorithm>
#include <cmath>

#include "int8_layout.h"

namespace embellama {
namespace {

// Of position p and pair i the angle p / base^(2i / n_rotated), in double precision.
// Source: https://arxiv.org/abs/2104.09864, 3.2.2.
Buffer<float> rotations_of(size_t n_positions, size_t n_rotated, double base) {
    const size_t n_pairs = n_rotated / 2;
    Buffer<float> out(n_positions * n_rotated);
    for (size_t pair = 0; pair < n_pairs; pair++) {
        const double speed = std::pow(base, -2.0 * (double)pair / (double)n_rotated);
        for (size_t position = 0; position < n_positions; position++) {
            float* row = out.get() + position * n_rotated;
            row[pair] = (float)std::cos((double)position * speed);
            row[n_pairs + pair] = (float)std::sin((double)position * speed);
        }
    }
    return out;
}

Buffer<float> distances_to(size_t n_tokens, size_t n_padded) {
    Buffer<float> out(n_tokens + n_padded + 1);
    for (size_t at = 0; at < out.size(); at++)
        out[at] = -std::fabs((float)at - (float)n_tokens);
    return out;
}

size_t padded_tokens(const Packing& packing, size_t n_tokens) {
    const size_t step = std::max(packing.lanes, packing.per_unit);  // whole vectors and units
    return (n_tokens + step - 1) / step * step;
}

Room room_for(const Shape& shape, const Packing& packing, size_t n_rows, size_t n_tokens) {
    const size_t padded = padded_tokens(packing, n_tokens);
    Room room;
    room.keys = Buffer<uint32_t>(padded * shape.head_size() / packing.per_unit);
    room.values = Buffer<uint32_t>(padded * shape.head_size() / packing.per_unit);
    room.scores = Buffer<float>(n_rows * padded);
    room.weights = Buffer<uint32_t>(n_rows * padded / packing.per_unit);
    if (shape.is_gated() || packing.is_int8)
        room.made = Buffer<float>(n_tokens * packing.inner_width());
    if (shape.has_halves)
        room.panel = Buffer<uint32_t>(packing.panel * std::max(shape.n_embd, shape.n_ff));
    return room;
}

size_t values_of(const Room& room) {
    return room.keys.size() + room.values.size() + room.scores.size() + room.weights.size() +
           room.made.size() + room.panel.size();
}

}  // namespace

Workspace::Workspace(const Shape& shape, const Packing& packing, size_t n_rows, size_t n_tokens,
                     size_t n_threads)
    : n_tokens(n_tokens), shape_(shape), packing_(packing), n_rows_(n_rows) {
    const auto units = [&](size_t n_values) { return n_values / packing.per_unit; };
    rows = Buffer<float>(n_tokens * shape.n_embd);
    qkv = Buffer<uint32_t>(units(n_tokens * 3 * shape.n_embd));
    if (packing.is_int8) {
        operands = Buffer<uint32_t>(n_tokens * shape.n_embd / 4);
        scales = Buffer<float>(n_tokens * shape.n_embd / INT8_BLOCK);
        shifts = Buffer<float>(n_tokens * shape.n_embd / INT8_BLOCK);
        attended = Buffer<uint32_t>(n_tokens * shape.n_embd);
        inner = Buffer<uint32_t>(n_tokens * shape.n_ff / 4);
        inner_scales = Buffer<float>(n_tokens * shape.n_ff / INT8_BLOCK);
    } else {
        operands = Buffer<uint32_t>(units(n_tokens * shape.n_embd));
        attended = Buffer<uint32_t>(units(n_tokens * shape.n_embd));
        inner = Buffer<uint32_t>(units(n_tokens * shape.n_ff));
    }
    if (shape.finishes_queries()) unfinished = Buffer<float>(n_tokens * 2 * shape.n_embd);
    if (shape.n_rotated > 0) rotations = rotations_of(n_tokens, shape.n_rotated, shape.rotary_base);
    if (shape.positions == Positions::Alibi)
        distances = distances_to(n_tokens, padded_tokens(packing, n_tokens));
    if (shape.has_second_norm) kept = Buffer<float>(n_tokens * shape.n_embd);
    make_rooms(n_threads);
}

void Workspace::make_rooms(size_t n_threads) {
    while (rooms.size() < n_threads)
        rooms.push_back(room_for(shape_, packing_, n_rows_, n_tokens));
}

size_t Workspace::n_bytes() const {
    size_t n_values = rows.size() + operands.size() + qkv.size() + attended.size() + inner.size() +
                      unfinished.size() + rotations.size() + distances.size() + kept.size() +
                      scales.size() + shifts.size() + inner_scales.size();
    for (const Room& room : rooms) n_values += values_of(room);
    return 4 * n_values;
}

}  // namespace embellama

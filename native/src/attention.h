// Attention of one sequence: every token to every token of its own sequence and no other.
//
// A few rows of queries at a time: their scores, the softmax not yet divided by its sum, and the
// weighted values, divided as they are stored.
#pragma once

#include <cmath>
#include <type_traits>

#include "gemm.h"
#include "functions.h"

namespace embellama {

// What a head's attention needs beside its input.
template <class Isa>
struct AttentionScratch {
    uint32_t* keys;     // of one head, packed as a weight: a column for each token
    uint32_t* values;   // of one head, packed as a weight: tokens are the inner dimension
    float* scores;      // ROWS × tokens
    uint32_t* weights;  // ROWS × tokens, an operand

    // Tokens are padded to whole vectors and whole units.
    static size_t padded(size_t n_tokens) {
        constexpr size_t step = Isa::LANES > Isa::PER_UNIT ? Isa::LANES : Isa::PER_UNIT;
        return (n_tokens + step - 1) / step * step;
    }
};

// Tokens beyond the last are zero.
template <class Isa>
EMBELLAMA_INLINE void pack_keys(const uint32_t* keys, size_t stride, size_t n_tokens,
                                size_t n_units, uint32_t* out) {
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    const size_t n_padded = AttentionScratch<Isa>::padded(n_tokens);
    for (size_t start = 0; start < n_padded; start += PANEL, out += PANEL * n_units) {
        const size_t width = start + PANEL <= n_padded ? PANEL : n_padded - start;
        for (size_t token = 0; token < width; token++) {
            const uint32_t* units = keys + (start + token) * stride;
            if (start + token < n_tokens)
                for (size_t unit = 0; unit < n_units; unit++) out[unit * width + token] = units[unit];
            else
                for (size_t unit = 0; unit < n_units; unit++) out[unit * width + token] = 0;
        }
    }
}

// A unit holds the same component of PER_UNIT neighbouring tokens.
template <class Isa>
EMBELLAMA_INLINE void pack_values(const typename Isa::Element* values, size_t stride,
                                  size_t n_tokens, size_t head_size, uint32_t* out) {
    using Element = typename Isa::Element;
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    const size_t n_units = AttentionScratch<Isa>::padded(n_tokens) / Isa::PER_UNIT;
    for (size_t start = 0; start < head_size; start += PANEL) {
        const size_t width = start + PANEL <= head_size ? PANEL : head_size - start;
        for (size_t unit = 0; unit < n_units; unit++, out += width) {
            auto* elements = reinterpret_cast<Element*>(out);
            for (size_t part = 0; part < Isa::PER_UNIT; part++) {
                const size_t token = unit * Isa::PER_UNIT + part;
                const Element* row = values + token * stride + start;
                for (size_t i = 0; i < width; i++)
                    elements[i * Isa::PER_UNIT + part] = token < n_tokens ? row[i] : Element(0);
            }
        }
    }
}

// Writes e^(scale · (score − largest)) as an operand, zero beyond the last token; returns the sum.
template <class Isa>
EMBELLAMA_INLINE float unnormalized_softmax(const float* scores, size_t n_tokens, float scale,
                                            typename Isa::Element* out) {
    using Vec = typename Isa::Vec;
    const size_t n_whole = n_tokens / Isa::LANES * Isa::LANES;
    float largest = -INFINITY;
    for (size_t at = n_whole; at < n_tokens; at++) largest = scores[at] > largest ? scores[at] : largest;
    if (n_whole > 0) {
        Vec most = Isa::load(scores);
        for (size_t at = Isa::LANES; at < n_whole; at += Isa::LANES)
            most = Isa::max(most, Isa::load(scores + at));
        const float found = Isa::largest(most);
        largest = found > largest ? found : largest;
    }
    const Vec factor = Isa::set(scale), offset = Isa::set(-largest * scale);
    Vec sum = Isa::zero();
    size_t at = 0;
    for (; at < n_whole; at += Isa::LANES) {
        const Vec weight = exp_of<Isa>(Isa::fma(Isa::load(scores + at), factor, offset));
        sum = Isa::add(sum, weight);
        Isa::store_elements(out + at, weight);
    }
    if (at < AttentionScratch<Isa>::padded(n_tokens)) {
        float rest[Isa::LANES];
        Isa::store(rest, exp_of<Isa>(Isa::fma(Isa::load(scores + at), factor, offset)));
        for (size_t i = n_tokens - at; i < Isa::LANES; i++) rest[i] = 0.0f;
        const Vec weight = Isa::load(rest);
        sum = Isa::add(sum, weight);
        Isa::store_elements(out + at, weight);
    }
    return Isa::sum(sum);
}

// ALiBi: a score falls by a slope of its head for every token from query to key, on either side.
// Source: https://arxiv.org/abs/2108.12409; to both sides as JinaBERT has it.
struct Alibi {
    const float* distances = nullptr;  // −|i| at [i], i of either sign; null: there is none
    const float* slopes = nullptr;     // of each head
};

// Adds slope × −|column − row| to a row of scores, for as many columns as that is padded to.
template <class Isa>
EMBELLAMA_INLINE void add_distances(const float* from_row, size_t n_padded, float slope,
                                    float* scores) {
    const auto factor = Isa::set(slope);
    for (size_t at = 0; at < n_padded; at += Isa::LANES)
        Isa::store(scores + at, Isa::fma(Isa::load(from_row + at), factor, Isa::load(scores + at)));
}

// One head's attention of one sequence.
//
// `qkv`: rows of queries, keys and values side by side, 3 × n_embd elements each.
// `out`: rows of n_embd elements, or floats.
template <class Isa, class Out>
void attend(const typename Isa::Element* qkv, size_t n_tokens, size_t n_embd, size_t head_size,
            size_t head, const Alibi& alibi, const AttentionScratch<Isa>& scratch,
            Out* out) {
    using Element = typename Isa::Element;
    using Vec = typename Isa::Vec;
    const size_t stride = 3 * n_embd;
    const size_t n_padded = AttentionScratch<Isa>::padded(n_tokens);
    const float scale = 1.0f / std::sqrt((float)head_size);
    const Element* queries = qkv + head * head_size;
    const auto* keys = reinterpret_cast<const uint32_t*>(queries + n_embd);
    pack_keys<Isa>(keys, stride / Isa::PER_UNIT, n_tokens, head_size / Isa::PER_UNIT, scratch.keys);
    pack_values<Isa>(queries + 2 * n_embd, stride, n_tokens, head_size, scratch.values);
    for (size_t first = 0; first < n_tokens; first += Isa::ROWS) {
        const size_t n_rows = first + Isa::ROWS <= n_tokens ? Isa::ROWS : n_tokens - first;
        product<Isa>(n_rows, reinterpret_cast<const uint32_t*>(queries + first * stride),
                     stride / Isa::PER_UNIT, scratch.keys, n_padded, head_size / Isa::PER_UNIT,
                     [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                         Isa::store(scratch.scores + row * n_padded + column, sums);
                     });
        auto* weights = reinterpret_cast<Element*>(scratch.weights);
        float factors[Isa::ROWS];
        for (size_t row = 0; row < n_rows; row++) {
            float* scores = scratch.scores + row * n_padded;
            if (alibi.distances != nullptr)  // not scaled as the scores are
                add_distances<Isa>(alibi.distances - (first + row), n_padded,
                                   alibi.slopes[head] / scale, scores);
            factors[row] = 1.0f / unnormalized_softmax<Isa>(scores, n_tokens, scale,
                                                            weights + row * n_padded);
        }
        Out* rows = out + first * n_embd + head * head_size;
        product<Isa>(n_rows, scratch.weights, n_padded / Isa::PER_UNIT, scratch.values, head_size,
                     n_padded / Isa::PER_UNIT,
                     [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                         const Vec value = Isa::mul(sums, Isa::set(factors[row]));
                         if constexpr (std::is_same_v<Out, float>)
                             Isa::store(rows + row * n_embd + column, value);
                         else
                             Isa::store_elements(rows + row * n_embd + column, value);
                     });
    }
}

}  // namespace embellama

// The forward pass of a micro-batch on one thread, from token ids to rows.
//
// The linear layers see the tokens of all sequences as one matrix; attention sees each sequence
// alone. Nothing is padded but to whole vectors.
#pragma once

#include <cmath>

#include "attention.h"
#include "gemm.h"
#include "functions.h"
#include "workspace.h"

namespace embellama {

// Writes (x − mean) / deviation · scale + shift in place, and as an operand.
template <class Isa>
EMBELLAMA_INLINE void normalize_row(float* row, size_t n, const Norm& norm, float eps,
                                    typename Isa::Element* operand) {
    using Vec = typename Isa::Vec;
    Vec sum = Isa::zero();
    for (size_t at = 0; at < n; at += Isa::LANES) sum = Isa::add(sum, Isa::load(row + at));
    const Vec mean = Isa::set(Isa::sum(sum) / (float)n);
    Vec squares = Isa::zero();
    for (size_t at = 0; at < n; at += Isa::LANES) {
        const Vec centred = Isa::sub(Isa::load(row + at), mean);
        squares = Isa::fma(centred, centred, squares);
    }
    const Vec factor = Isa::set(1.0f / std::sqrt(Isa::sum(squares) / (float)n + eps));
    for (size_t at = 0; at < n; at += Isa::LANES) {
        const Vec scaled = Isa::mul(Isa::sub(Isa::load(row + at), mean), factor);
        const Vec value = Isa::fma(scaled, Isa::load(norm.scale.get() + at),
                                   Isa::load(norm.shift.get() + at));
        Isa::store(row + at, value);
        Isa::store_elements(operand + at, value);
    }
}

template <class Isa>
EMBELLAMA_INLINE void normalize_rows(Workspace& work, const Shape& shape, size_t n_tokens,
                                     const Norm& norm) {
    auto* operands = work.elements<typename Isa::Element>(work.operands);
    for (size_t token = 0; token < n_tokens; token++)
        normalize_row<Isa>(work.rows.get() + token * shape.n_embd, shape.n_embd, norm,
                           shape.norm_eps, operands + token * shape.n_embd);
}

// row += added
template <class Isa>
EMBELLAMA_INLINE void add_to_row(float* row, const float* added, size_t n) {
    for (size_t at = 0; at < n; at += Isa::LANES)
        Isa::store(row + at, Isa::add(Isa::load(row + at), Isa::load(added + at)));
}

// Sum of the embeddings of token, type and, where there is one, position, normalised.
template <class Isa>
void embed_tokens(const Model& model, const Batch& batch, Workspace& work) {
    const size_t n_embd = model.shape.n_embd;
    const bool has_positions = model.shape.positions == Positions::Absolute;
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++) {
        const size_t start = batch.offsets[sequence], end = batch.offsets[sequence + 1];
        for (size_t token = start; token < end; token++) {
            float* row = work.rows.get() + token * n_embd;
            read_row(model.tokens, batch.ids[token], row);
            const size_t type = batch.types != nullptr ? batch.types[token] : 0;
            add_to_row<Isa>(row, model.token_types.get() + type * n_embd, n_embd);
            if (has_positions)
                add_to_row<Isa>(row, model.positions.get() + (token - start) * n_embd, n_embd);
        }
    }
    normalize_rows<Isa>(work, model.shape, batch.n_tokens(), model.embedding_norm);
}

// rows += operands · weights + bias
template <class Isa>
void add_product(const Linear& linear, const uint32_t* operands, size_t n_tokens, float* rows) {
    const float* bias = linear.bias.get();
    product<Isa>(n_tokens, operands, linear.n_in / Isa::PER_UNIT, linear.panels.get(), linear.n_out,
                 linear.n_in / Isa::PER_UNIT,
                 [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                     float* at = rows + row * linear.n_out + column;
                     const auto value = Isa::add(sums, Isa::load(bias + column));
                     Isa::store(at, Isa::add(Isa::load(at), value));
                 });
}

// Queries, keys and values side by side, as operands; queries and keys as floats where more has to
// be done to them first.
template <class Isa>
void make_queries(const Layer& layer, const Shape& shape, size_t n_tokens, Workspace& work) {
    using Vec = typename Isa::Vec;
    const size_t n_out = layer.qkv.n_out, n_units = shape.n_embd / Isa::PER_UNIT;
    const size_t n_unfinished = shape.finishes_queries() ? 2 * shape.n_embd : 0;
    auto* qkv = work.elements<typename Isa::Element>(work.qkv);
    float* unfinished = work.unfinished.get();
    const float* bias = layer.qkv.bias.get();
    product<Isa>(n_tokens, work.operands.get(), n_units, layer.qkv.panels.get(), n_out, n_units,
                 [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                     const Vec value = Isa::add(sums, Isa::load(bias + column));
                     if (column < n_unfinished)
                         Isa::store(unfinished + row * n_unfinished + column, value);
                     else
                         Isa::store_elements(qkv + row * n_out + column, value);
                 });
}

// Rotates the first components of every head in place: pairs that are half of those apart.
// `rotation`: n_rotated / 2 cosines, then as many sines.
template <class Isa>
EMBELLAMA_INLINE void rotate_row(float* row, const Shape& shape, const float* rotation) {
    const size_t half = shape.n_rotated / 2, n_whole = half / Isa::LANES * Isa::LANES;
    for (float* head = row; head < row + shape.n_embd; head += shape.head_size()) {
        for (size_t at = 0; at < n_whole; at += Isa::LANES) {
            const auto cosine = Isa::load(rotation + at), sine = Isa::load(rotation + half + at);
            const auto first = Isa::load(head + at), second = Isa::load(head + half + at);
            Isa::store(head + at, Isa::sub(Isa::mul(first, cosine), Isa::mul(second, sine)));
            Isa::store(head + half + at, Isa::fma(first, sine, Isa::mul(second, cosine)));
        }
        for (size_t at = n_whole; at < half; at++) {
            const float cosine = rotation[at], sine = rotation[half + at];
            const float first = head[at], second = head[half + at];
            head[at] = first * cosine - second * sine;
            head[half + at] = first * sine + second * cosine;
        }
    }
}

// Normalises and rotates queries and keys, as far as the model does, and makes them operands.
template <class Isa>
void finish_queries(const Layer& layer, const Shape& shape, const Batch& batch, Workspace& work) {
    const size_t n_embd = shape.n_embd;
    auto* qkv = work.elements<typename Isa::Element>(work.qkv);
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++) {
        const size_t start = batch.offsets[sequence], end = batch.offsets[sequence + 1];
        for (size_t token = start; token < end; token++) {
            for (size_t part = 0; part < 2; part++) {
                float* row = work.unfinished.get() + (2 * token + part) * n_embd;
                auto* operand = qkv + (3 * token + part) * n_embd;
                if (shape.has_query_norms)
                    normalize_row<Isa>(row, n_embd, part == 0 ? layer.query_norm : layer.key_norm,
                                       shape.norm_eps, operand);
                if (shape.n_rotated > 0)
                    rotate_row<Isa>(row, shape,
                                    work.rotations.get() + (token - start) * shape.n_rotated);
                for (size_t at = 0; at < n_embd; at += Isa::LANES)
                    Isa::store_elements(operand + at, Isa::load(row + at));
            }
        }
    }
}

// Each sequence's own attention.
template <class Isa>
void attend_sequences(const Model& model, const Batch& batch, Workspace& work) {
    using Element = typename Isa::Element;
    const size_t n_embd = model.shape.n_embd;
    const auto* qkv = work.elements<Element>(work.qkv);
    auto* attended = work.elements<Element>(work.attended);
    const AttentionScratch<Isa> scratch{work.keys.get(), work.values.get(), work.scores.get(),
                                        work.weights.get()};
    Alibi alibi;
    if (model.shape.positions == Positions::Alibi)
        alibi = Alibi{work.distances.get() + work.n_tokens, model.slopes.get()};
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++) {
        const size_t start = batch.offsets[sequence];
        attend<Isa>(qkv + start * 3 * n_embd, batch.offsets[sequence + 1] - start, n_embd,
                    model.shape.n_heads, alibi, scratch, attended + start * n_embd);
    }
}

// inner = gelu(operands · up)
template <class Isa>
void make_inner(const Layer& layer, size_t n_tokens, Workspace& work) {
    const size_t n_ff = layer.up.n_out, n_units = layer.up.n_in / Isa::PER_UNIT;
    const float* bias = layer.up.bias.get();
    auto* inner = work.elements<typename Isa::Element>(work.inner);
    product<Isa>(n_tokens, work.operands.get(), n_units, layer.up.panels.get(), n_ff, n_units,
                 [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                     const auto value = Isa::add(sums, Isa::load(bias + column));
                     Isa::store_elements(inner + row * n_ff + column, gelu_of<Isa>(value));
                 });
}

// inner = activate(operands · gate) × (operands · up)
//
// A panel of the one, then the same of the other, so that what is between stays in the cache.
template <class Isa, class Activate>
EMBELLAMA_INLINE void make_gated_inner(const Layer& layer, size_t n_tokens, Workspace& work,
                                       const Activate& activate) {
    using Vec = typename Isa::Vec;
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    const size_t n_ff = layer.up.n_out, n_units = layer.up.n_in / Isa::PER_UNIT;
    auto* inner = work.elements<typename Isa::Element>(work.inner);
    float* gates = work.gates.get();
    for (size_t start = 0; start < n_ff; start += PANEL) {
        const int n_vectors = (int)((start + PANEL <= n_ff ? PANEL : n_ff - start) / Isa::LANES);
        const float* gate_bias = layer.gate.bias.get() + start;
        any_panel_product<Isa, Isa::VECTORS>(
            n_vectors, n_tokens, work.operands.get(), n_units,
            layer.gate.panels.get() + start * n_units, n_units,
            [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                const Vec value = Isa::add(sums, Isa::load(gate_bias + column));
                Isa::store(gates + row * PANEL + column, activate(value));
            });
        const float* bias = layer.up.bias.get() + start;
        any_panel_product<Isa, Isa::VECTORS>(
            n_vectors, n_tokens, work.operands.get(), n_units,
            layer.up.panels.get() + start * n_units, n_units,
            [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                const Vec value = Isa::add(sums, Isa::load(bias + column));
                Isa::store_elements(inner + row * n_ff + start + column,
                                    Isa::mul(value, Isa::load(gates + row * PANEL + column)));
            });
    }
}

template <class Isa>
void feed_forward(const Layer& layer, const Shape& shape, size_t n_tokens, Workspace& work) {
    using Vec = typename Isa::Vec;
    if (shape.activation == Activation::Swiglu)
        make_gated_inner<Isa>(layer, n_tokens, work,
                              [](Vec x) EMBELLAMA_INLINED { return silu_of<Isa>(x); });
    else if (shape.activation == Activation::Geglu)
        make_gated_inner<Isa>(layer, n_tokens, work,
                              [](Vec x) EMBELLAMA_INLINED { return gelu_of<Isa>(x); });
    else
        make_inner<Isa>(layer, n_tokens, work);
    add_product<Isa>(layer.down, work.inner.get(), n_tokens, work.rows.get());
}

template <class Isa>
void run_layer(const Layer& layer, const Model& model, const Batch& batch, Workspace& work) {
    const Shape& shape = model.shape;
    const size_t n_tokens = batch.n_tokens(), n_values = n_tokens * shape.n_embd;
    make_queries<Isa>(layer, shape, n_tokens, work);
    if (shape.finishes_queries()) finish_queries<Isa>(layer, shape, batch, work);
    attend_sequences<Isa>(model, batch, work);
    if (shape.has_second_norm)
        for (size_t at = 0; at < n_values; at += Isa::LANES)
            Isa::store(work.kept.get() + at, Isa::load(work.rows.get() + at));
    add_product<Isa>(layer.out, work.attended.get(), n_tokens, work.rows.get());
    normalize_rows<Isa>(work, shape, n_tokens, layer.attention_norm);
    if (shape.has_second_norm) {
        add_to_row<Isa>(work.rows.get(), work.kept.get(), n_values);
        normalize_rows<Isa>(work, shape, n_tokens, layer.attention_norm_2);
    }
    feed_forward<Isa>(layer, shape, n_tokens, work);
    normalize_rows<Isa>(work, shape, n_tokens, layer.output_norm);
}

// Makes one row of each sequence, or copies every token's.
template <class Isa>
void pool_rows(const Shape& shape, const Batch& batch, Pooling pooling, const float* rows,
               float* out) {
    const size_t n = shape.n_embd;
    if (pooling == Pooling::None) {
        for (size_t at = 0; at < batch.n_tokens() * n; at += Isa::LANES)
            Isa::store(out + at, Isa::load(rows + at));
        return;
    }
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++, out += n) {
        size_t start = batch.offsets[sequence], end = batch.offsets[sequence + 1];
        if (pooling == Pooling::Cls) end = start + 1;
        if (pooling == Pooling::Last) start = end - 1;
        const auto factor = Isa::set(1.0f / (float)(end - start));
        for (size_t at = 0; at < n; at += Isa::LANES) {
            auto sum = Isa::load(rows + start * n + at);
            for (size_t token = start + 1; token < end; token++)
                sum = Isa::add(sum, Isa::load(rows + token * n + at));
            Isa::store(out + at, Isa::mul(sum, factor));
        }
    }
}

template <class Isa>
void run_encoder(const Model& model, const Batch& batch, Pooling pooling, Workspace& work,
                 float* out) {
    embed_tokens<Isa>(model, batch, work);
    for (const Layer& layer : model.layers) run_layer<Isa>(layer, model, batch, work);
    pool_rows<Isa>(model.shape, batch, pooling, work.rows.get(), out);
}

}  // namespace embellama

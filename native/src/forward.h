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

// Sum of the embeddings of token, position and type, normalised.
template <class Isa>
void embed_tokens(const Model& model, const Batch& batch, Workspace& work) {
    const size_t n_embd = model.shape.n_embd;
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++) {
        const size_t start = batch.offsets[sequence], end = batch.offsets[sequence + 1];
        for (size_t token = start; token < end; token++) {
            float* row = work.rows.get() + token * n_embd;
            read_row(model.tokens, batch.ids[token], row);
            const size_t type = batch.types != nullptr ? batch.types[token] : 0;
            const float* position = model.positions.get() + (token - start) * n_embd;
            const float* kind = model.token_types.get() + type * n_embd;
            for (size_t at = 0; at < n_embd; at += Isa::LANES) {
                const auto sum = Isa::add(Isa::load(position + at), Isa::load(kind + at));
                Isa::store(row + at, Isa::add(Isa::load(row + at), sum));
            }
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

template <class Isa>
void run_layer(const Layer& layer, const Shape& shape, const Batch& batch, Workspace& work) {
    using Element = typename Isa::Element;
    using Vec = typename Isa::Vec;
    const size_t n_tokens = batch.n_tokens();
    const size_t n_units = shape.n_embd / Isa::PER_UNIT;
    auto* qkv = work.elements<Element>(work.qkv);
    product<Isa>(n_tokens, work.operands.get(), n_units, layer.qkv.panels.get(), layer.qkv.n_out,
                 n_units, [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                     const Vec value = Isa::add(sums, Isa::load(layer.qkv.bias.get() + column));
                     Isa::store_elements(qkv + row * layer.qkv.n_out + column, value);
                 });
    auto* attended = work.elements<Element>(work.attended);
    const AttentionScratch<Isa> scratch{work.keys.get(), work.values.get(), work.scores.get(),
                                        work.weights.get()};
    for (size_t sequence = 0; sequence < batch.n_sequences; sequence++) {
        const size_t start = batch.offsets[sequence];
        attend<Isa>(qkv + start * 3 * shape.n_embd, batch.offsets[sequence + 1] - start,
                    shape.n_embd, shape.n_heads, scratch, attended + start * shape.n_embd);
    }
    add_product<Isa>(layer.out, work.attended.get(), n_tokens, work.rows.get());
    normalize_rows<Isa>(work, shape, n_tokens, layer.attention_norm);
    auto* inner = work.elements<Element>(work.inner);
    product<Isa>(n_tokens, work.operands.get(), n_units, layer.up.panels.get(), shape.n_ff, n_units,
                 [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                     const Vec value = Isa::add(sums, Isa::load(layer.up.bias.get() + column));
                     Isa::store_elements(inner + row * shape.n_ff + column, gelu_of<Isa>(value));
                 });
    add_product<Isa>(layer.down, work.inner.get(), n_tokens, work.rows.get());
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
    for (const Layer& layer : model.layers) run_layer<Isa>(layer, model.shape, batch, work);
    pool_rows<Isa>(model.shape, batch, pooling, work.rows.get(), out);
}

}  // namespace embellama

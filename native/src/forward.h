// The forward pass of a micro-batch, from token ids to rows; what one thread of a team does of it.
//
// The linear layers see the tokens of all sequences as one matrix; attention sees each sequence
// alone. Nothing is padded but to whole vectors.
#pragma once

#include <cmath>

#include "attention.h"
#include "functions.h"
#include "gemm.h"
#include "share.h"
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

// One thread's part in the forward pass of a micro-batch.
struct Pass {
    const Model& model;
    const Batch& batch;
    Workspace& work;
    Team team;

    size_t n_tokens() const { return batch.n_tokens(); }
};

// Normalises rows [first, end) and makes them operands.
template <class Isa>
EMBELLAMA_INLINE void normalize_rows(Workspace& work, const Shape& shape, size_t first, size_t end,
                                     const Norm& norm) {
    auto* operands = work.elements<typename Isa::Element>(work.operands);
    for (size_t token = first; token < end; token++)
        normalize_row<Isa>(work.rows.get() + token * shape.n_embd, shape.n_embd, norm,
                           shape.norm_eps, operands + token * shape.n_embd);
}

// row += added
template <class Isa>
EMBELLAMA_INLINE void add_to_row(float* row, const float* added, size_t n) {
    for (size_t at = 0; at < n; at += Isa::LANES)
        Isa::store(row + at, Isa::add(Isa::load(row + at), Isa::load(added + at)));
}

// Calls work(token, position) for tokens [first, end): where each is in its own sequence.
template <class Work>
EMBELLAMA_INLINE void for_positions(const Batch& batch, size_t first, size_t end, const Work& work) {
    size_t sequence = 0;
    for (size_t token = first; token < end; token++) {
        while (token >= (size_t)batch.offsets[sequence + 1]) sequence++;
        work(token, token - (size_t)batch.offsets[sequence]);
    }
}

// Sum of the embeddings of token, type and, where there is one, position, normalised.
template <class Isa>
void embed_tokens(Pass& pass) {
    const Model& model = pass.model;
    const size_t n_embd = model.shape.n_embd;
    const bool has_positions = model.shape.positions == Positions::Absolute;
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        for_positions(pass.batch, first, end, [&](size_t token, size_t position) {
            float* row = pass.work.rows.get() + token * n_embd;
            read_row(model.tokens, pass.batch.ids[token], row);
            const size_t type = pass.batch.types != nullptr ? pass.batch.types[token] : 0;
            add_to_row<Isa>(row, model.token_types.get() + type * n_embd, n_embd);
            if (has_positions)
                add_to_row<Isa>(row, model.positions.get() + position * n_embd, n_embd);
        });
        normalize_rows<Isa>(pass.work, model.shape, first, end, model.embedding_norm);
    });
}

// rows += operands · weights + bias
template <class Isa>
void add_product(Pass& pass, const Linear& linear, const uint32_t* operands) {
    const float* bias = linear.bias.get();
    float* rows = pass.work.rows.get();
    shared_product<Isa>(pass.team, pass.n_tokens(), operands, linear.panels.get(), linear.n_out,
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
void make_queries(Pass& pass, const Layer& layer) {
    using Vec = typename Isa::Vec;
    const Shape& shape = pass.model.shape;
    const size_t n_out = layer.qkv.n_out;
    const size_t n_unfinished = shape.finishes_queries() ? 2 * shape.n_embd : 0;
    auto* qkv = pass.work.elements<typename Isa::Element>(pass.work.qkv);
    float* unfinished = pass.work.unfinished.get();
    const float* bias = layer.qkv.bias.get();
    shared_product<Isa>(pass.team, pass.n_tokens(), pass.work.operands.get(),
                        layer.qkv.panels.get(), n_out, shape.n_embd / Isa::PER_UNIT,
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

// Normalises and rotates a token's queries and keys, as far as the model does, and makes them
// operands.
template <class Isa>
EMBELLAMA_INLINE void finish_token(const Layer& layer, const Shape& shape, size_t token,
                                   size_t position, Workspace& work) {
    const size_t n_embd = shape.n_embd;
    auto* qkv = work.elements<typename Isa::Element>(work.qkv);
    for (size_t part = 0; part < 2; part++) {
        float* row = work.unfinished.get() + (2 * token + part) * n_embd;
        auto* operand = qkv + (3 * token + part) * n_embd;
        if (shape.has_query_norms)
            normalize_row<Isa>(row, n_embd, part == 0 ? layer.query_norm : layer.key_norm,
                               shape.norm_eps, operand);
        if (shape.n_rotated > 0)
            rotate_row<Isa>(row, shape, work.rotations.get() + position * shape.n_rotated);
        for (size_t at = 0; at < n_embd; at += Isa::LANES)
            Isa::store_elements(operand + at, Isa::load(row + at));
    }
}

template <class Isa>
void finish_queries(Pass& pass, const Layer& layer) {
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        for_positions(pass.batch, first, end, [&](size_t token, size_t position) {
            finish_token<Isa>(layer, pass.model.shape, token, position, pass.work);
        });
    });
}

// Each sequence's own attention, each head by itself.
template <class Isa>
void attend_sequences(Pass& pass) {
    using Element = typename Isa::Element;
    const Shape& shape = pass.model.shape;
    Workspace& work = pass.work;
    Room& room = work.rooms[pass.team.member()];
    const auto* qkv = work.elements<Element>(work.qkv);
    auto* attended = work.elements<Element>(work.attended);
    const AttentionScratch<Isa> scratch{room.keys.get(), room.values.get(), room.scores.get(),
                                        room.weights.get()};
    Alibi alibi;
    if (shape.positions == Positions::Alibi)
        alibi = Alibi{work.distances.get() + work.n_tokens, pass.model.slopes.get()};
    share(pass.team, pass.batch.n_sequences * shape.n_heads, [&](size_t item) {
        const size_t sequence = item / shape.n_heads;
        const size_t start = pass.batch.offsets[sequence];
        attend<Isa>(qkv + start * 3 * shape.n_embd, pass.batch.offsets[sequence + 1] - start,
                    shape.n_embd, shape.head_size(), item % shape.n_heads, alibi, scratch,
                    attended + start * shape.n_embd);
    });
}

// inner = gelu(operands · up)
template <class Isa>
void make_inner(Pass& pass, const Layer& layer) {
    const size_t n_ff = layer.up.n_out;
    const float* bias = layer.up.bias.get();
    auto* inner = pass.work.elements<typename Isa::Element>(pass.work.inner);
    shared_product<Isa>(pass.team, pass.n_tokens(), pass.work.operands.get(),
                        layer.up.panels.get(), n_ff, layer.up.n_in / Isa::PER_UNIT,
                        [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                            const auto value = Isa::add(sums, Isa::load(bias + column));
                            Isa::store_elements(inner + row * n_ff + column, gelu_of<Isa>(value));
                        });
}

// inner = activate(operands · gate) × (operands · up)
//
// A panel of the one, then the same of the other, so that what is between stays in the cache.
template <class Isa, class Activate>
EMBELLAMA_INLINE void make_gated_inner(Pass& pass, const Layer& layer, const Activate& activate) {
    using Vec = typename Isa::Vec;
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    const size_t n_ff = layer.up.n_out, n_units = layer.up.n_in / Isa::PER_UNIT;
    auto* inner = pass.work.elements<typename Isa::Element>(pass.work.inner);
    float* gates = pass.work.rooms[pass.team.member()].gates.get();
    share_panels<Isa>(pass.team, pass.n_tokens(), n_ff,
                      [&](size_t start, int n_vectors, size_t first, size_t n) EMBELLAMA_INLINED {
        const uint32_t* operands = pass.work.operands.get() + first * n_units;
        const float* gate_bias = layer.gate.bias.get() + start;
        any_panel_product<Isa, Isa::VECTORS>(
            n_vectors, n, operands, n_units, layer.gate.panels.get() + start * n_units, n_units,
            [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                const Vec value = Isa::add(sums, Isa::load(gate_bias + column));
                Isa::store(gates + row * PANEL + column, activate(value));
            });
        const float* bias = layer.up.bias.get() + start;
        any_panel_product<Isa, Isa::VECTORS>(
            n_vectors, n, operands, n_units, layer.up.panels.get() + start * n_units, n_units,
            [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                const Vec value = Isa::add(sums, Isa::load(bias + column));
                Isa::store_elements(inner + (first + row) * n_ff + start + column,
                                    Isa::mul(value, Isa::load(gates + row * PANEL + column)));
            });
    });
}

template <class Isa>
void feed_forward(Pass& pass, const Layer& layer) {
    using Vec = typename Isa::Vec;
    const Activation activation = pass.model.shape.activation;
    if (activation == Activation::Swiglu)
        make_gated_inner<Isa>(pass, layer, [](Vec x) EMBELLAMA_INLINED { return silu_of<Isa>(x); });
    else if (activation == Activation::Geglu)
        make_gated_inner<Isa>(pass, layer, [](Vec x) EMBELLAMA_INLINED { return gelu_of<Isa>(x); });
    else
        make_inner<Isa>(pass, layer);
    add_product<Isa>(pass, layer.down, pass.work.inner.get());
}

// Keeps the input of attention where it is added and normalised a second time.
template <class Isa>
void keep_rows(Pass& pass) {
    const size_t n_embd = pass.model.shape.n_embd;
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        for (size_t at = first * n_embd; at < end * n_embd; at += Isa::LANES)
            Isa::store(pass.work.kept.get() + at, Isa::load(pass.work.rows.get() + at));
    });
}

template <class Isa>
void finish_attention(Pass& pass, const Layer& layer) {
    const Shape& shape = pass.model.shape;
    Workspace& work = pass.work;
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        normalize_rows<Isa>(work, shape, first, end, layer.attention_norm);
        if (!shape.has_second_norm) return;
        const size_t start = first * shape.n_embd;
        add_to_row<Isa>(work.rows.get() + start, work.kept.get() + start,
                        end * shape.n_embd - start);
        normalize_rows<Isa>(work, shape, first, end, layer.attention_norm_2);
    });
}

template <class Isa>
void finish_layer(Pass& pass, const Layer& layer) {
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        normalize_rows<Isa>(pass.work, pass.model.shape, first, end, layer.output_norm);
    });
}

template <class Isa>
void run_layer(Pass& pass, const Layer& layer) {
    const Shape& shape = pass.model.shape;
    make_queries<Isa>(pass, layer);
    if (shape.finishes_queries()) finish_queries<Isa>(pass, layer);
    attend_sequences<Isa>(pass);
    if (shape.has_second_norm) keep_rows<Isa>(pass);
    add_product<Isa>(pass, layer.out, pass.work.attended.get());
    finish_attention<Isa>(pass, layer);
    feed_forward<Isa>(pass, layer);
    finish_layer<Isa>(pass, layer);
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
                 const Team& team, float* out) {
    Pass pass{model, batch, work, team};
    embed_tokens<Isa>(pass);
    for (const Layer& layer : model.layers) run_layer<Isa>(pass, layer);
    if (team.member() == 0) pool_rows<Isa>(model.shape, batch, pooling, work.rows.get(), out);
}

}  // namespace embellama

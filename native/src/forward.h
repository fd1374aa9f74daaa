// The forward pass of a micro-batch, from token ids to rows; what one thread of a team does of it.
//
// The linear layers see the tokens of all sequences as one matrix; attention sees each sequence
// alone. Nothing is padded but to whole vectors.
#pragma once

#include "attention.h"
#include "functions.h"
#include "linear.h"

namespace embellama {

// One thread's part in the forward pass of a micro-batch.
struct Pass {
    const Model& model;
    const Batch& batch;
    Workspace& work;
    Team team;

    size_t n_tokens() const { return batch.n_tokens(); }
};

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
        normalize_rows<Isa, Kind::Shifted>(pass.work, model.shape, first, end,
                                          model.embedding_norm);
    });
}

// rows += operands · weights + bias
template <class Isa>
void add_product(Pass& pass, const Linear& linear, const Rows<Isa>& operands) {
    const float* bias = linear.bias.get();
    float* rows = pass.work.rows.get();
    layer_product<Isa, Kind::Plain>(
        pass.work, pass.team, pass.n_tokens(), operands, linear,
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
    layer_product<Isa, Kind::Shifted>(
        pass.work, pass.team, pass.n_tokens(), operands_of<Isa>(pass.work, shape.n_embd), layer.qkv,
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
        if (shape.has_query_norms) {
            const Norm& norm = part == 0 ? layer.query_norm : layer.key_norm;
            const NormalizedRow<Isa> normalized(row, n_embd, norm, shape.norm_eps);
            for (size_t at = 0; at < n_embd; at += Isa::LANES)
                Isa::store(row + at, normalized.at(at));
        }
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

// What attention writes: the next operand, or what the next operand is made of.
template <class Isa>
using Attended = std::conditional_t<Isa::IS_INT8, float, typename Isa::Element>;

// Each sequence's own attention, each head by itself.
template <class Isa>
void attend_sequences(Pass& pass) {
    const Shape& shape = pass.model.shape;
    Workspace& work = pass.work;
    Room& room = work.rooms[pass.team.member()];
    const auto* qkv = work.elements<typename Isa::Element>(work.qkv);
    auto* attended = work.elements<Attended<Isa>>(work.attended);
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

// rows += attended · out
template <class Isa>
void add_attended(Pass& pass, const Layer& layer) {
    Workspace& work = pass.work;
    if constexpr (Isa::IS_INT8) {
        const size_t n = pass.model.shape.n_embd;
        const auto* attended = work.elements<float>(work.attended);
        share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
            for (size_t token = first; token < end; token++)
                quantize_row<Isa, false>(attended + token * n, n, int8_operand(work, token, n));
        });
        add_product<Isa>(pass, layer.out, operands_of<Isa>(work, n));
    } else {
        add_product<Isa>(pass, layer.out, work.attended.get());
    }
}

// Some rows of one panel of what is between the two products of a feed-forward block.
struct Piece {
    size_t first, n_rows;  // rows
    size_t column;         // the panel's first
    int n_vectors;
    float* made;           // room for its floats, rows `inner_width` apart
};

// inner = finish(operands · up), as an operand. `before(piece)` is called ahead of each piece, and
// `finish(sums, floats)` with the place of what it left there.
template <class Isa, bool GATED, class Before, class Finish>
EMBELLAMA_INLINE void make_inner(Pass& pass, const Layer& layer, const Before& before,
                                 const Finish& finish) {
    constexpr size_t PANEL = packing_of<Isa>().panel, WIDTH = packing_of<Isa>().inner_width();
    Workspace& work = pass.work;
    const auto operands = operands_of<Isa>(work, layer.up.n_in);
    const size_t n_ff = layer.up.n_out;
    const float* bias = layer.up.bias.get();
    Room& room = work.rooms[pass.team.member()];
    float* made = room.made.get();
    auto* inner = work.elements<typename Isa::Element>(work.inner);
    const auto make_piece = [&](const Piece& piece) EMBELLAMA_INLINED {
        before(piece);
        layer_panel<Isa, Kind::Plain>(
            room, piece.n_vectors, piece.first, piece.n_rows, operands, layer.up, piece.column,
            [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                float* floats = nullptr;
                if constexpr (GATED || Isa::IS_INT8) floats = piece.made + row * WIDTH + column;
                column += piece.column;
                const auto value = finish(Isa::add(sums, Isa::load(bias + column)), floats);
                if constexpr (Isa::IS_INT8)
                    Isa::store(floats, value);
                else
                    Isa::store_elements(inner + (piece.first + row) * n_ff + column, value);
            });
    };
    share_panels<WIDTH, Isa::ROWS>(
        pass.team, pass.n_tokens(), n_ff,
        [&](size_t start, size_t width, size_t first, size_t n) EMBELLAMA_INLINED {
            for (size_t done = 0; done < width; done += PANEL) {
                const size_t columns = done + PANEL <= width ? PANEL : width - done;
                make_piece(Piece{first, n, start + done, (int)(columns / Isa::LANES),
                                 GATED || Isa::IS_INT8 ? made + done : nullptr});
            }
            if constexpr (Isa::IS_INT8)
                for (size_t row = 0; row < n; row++)
                    quantize_row<Isa, false>(made + row * WIDTH, width,
                                             inner_operand(work, first + row, n_ff, start));
        });
}

// inner = activate(operands · gate) × (operands · up)
//
// A panel of the one, then the same of the other, so that what is between stays in the cache.
template <class Isa, class Activate>
EMBELLAMA_INLINE void make_gated_inner(Pass& pass, const Layer& layer, const Activate& activate) {
    using Vec = typename Isa::Vec;
    constexpr size_t WIDTH = packing_of<Isa>().inner_width();
    const auto operands = operands_of<Isa>(pass.work, layer.gate.n_in);
    Room& room = pass.work.rooms[pass.team.member()];
    const float* bias = layer.gate.bias.get();
    const auto make_gate = [&](const Piece& piece) EMBELLAMA_INLINED {
        layer_panel<Isa, Kind::Plain>(
            room, piece.n_vectors, piece.first, piece.n_rows, operands, layer.gate, piece.column,
            [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                const Vec value = Isa::add(sums, Isa::load(bias + piece.column + column));
                Isa::store(piece.made + row * WIDTH + column, activate(value));
            });
    };
    make_inner<Isa, true>(pass, layer, make_gate, [](Vec value, const float* gate) EMBELLAMA_INLINED {
        return Isa::mul(value, Isa::load(gate));
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
        make_inner<Isa, false>(
            pass, layer, [](const Piece&) EMBELLAMA_INLINED {},
            [](Vec value, const float*) EMBELLAMA_INLINED { return gelu_of<Isa>(value); });
    add_product<Isa>(pass, layer.down, inner_of<Isa>(pass.work, layer.down.n_in));
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
        normalize_rows<Isa, Kind::Plain>(work, shape, first, end, layer.attention_norm);
        if (!shape.has_second_norm) return;
        const size_t start = first * shape.n_embd;
        add_to_row<Isa>(work.rows.get() + start, work.kept.get() + start,
                        end * shape.n_embd - start);
        normalize_rows<Isa, Kind::Plain>(work, shape, first, end, layer.attention_norm_2);
    });
}

template <class Isa>
void finish_layer(Pass& pass, const Layer& layer) {
    share_rows(pass.team, pass.n_tokens(), [&](size_t first, size_t end) {
        normalize_rows<Isa, Kind::Shifted>(pass.work, pass.model.shape, first, end,
                                           layer.output_norm);
    });
}

template <class Isa>
void run_layer(Pass& pass, const Layer& layer) {
    const Shape& shape = pass.model.shape;
    make_queries<Isa>(pass, layer);
    if (shape.finishes_queries()) finish_queries<Isa>(pass, layer);
    attend_sequences<Isa>(pass);
    if (shape.has_second_norm) keep_rows<Isa>(pass);
    add_attended<Isa>(pass, layer);
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

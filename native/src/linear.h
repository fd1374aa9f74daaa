// Linear layers: what is multiplied is floats or bfloat16 (operand.h), or bytes (int8_layout.h).
#pragma once

#include <type_traits>

#include "gemm_int8.h"
#include "norm.h"
#include "quantize.h"
#include "share.h"
#include "workspace.h"

namespace embellama {

template <class Isa>
constexpr Packing packing_of() {
    Packing packing;
    packing.panel = (size_t)Isa::LANES * Isa::VECTORS;
    packing.lanes = (size_t)Isa::LANES;
    packing.per_unit = Isa::PER_UNIT;
    packing.keeps_halves = Isa::KEEPS_HALVES && Isa::PER_UNIT == 1 && !Isa::IS_INT8;
    if constexpr (Isa::IS_INT8) {
        static_assert(Isa::INT8_VECTORS == Isa::VECTORS, "attention and layers have the same panels");
        packing.is_int8 = true;
        packing.int8_offset = Isa::INT8_OFFSET;
    }
    return packing;
}

// Rows of an operand, one after the other.
template <class Isa>
using Rows = std::conditional_t<Isa::IS_INT8, Int8Rows, const uint32_t*>;

// Whether what a layer multiplies is shifted, where it is bytes: queries, keys and values gain most
// from it for what it costs. Mean cosine of MiniLM's vectors: 0.99957 without, 0.99968 so, and
// 0.99974 with all layers shifted.
enum class Kind { Plain, Shifted };

// `work.operands` as it is multiplied.
template <class Isa>
EMBELLAMA_INLINE Rows<Isa> operands_of(const Workspace& work, size_t n) {
    if constexpr (Isa::IS_INT8)
        return Int8Rows{work.operands.get(), work.scales.get(), work.shifts.get(), n / INT8_BLOCK};
    else
        return work.operands.get();
}

// Where row `token` of it goes.
EMBELLAMA_INLINE Int8Row int8_operand(Workspace& work, size_t token, size_t n) {
    const size_t block = token * (n / INT8_BLOCK);
    return Int8Row{work.elements<uint8_t>(work.operands) + token * n, work.scales.get() + block,
                   work.shifts.get() + block};
}

// The same of what is between the two products of a feed-forward block: `work.inner`.
template <class Isa>
EMBELLAMA_INLINE Rows<Isa> inner_of(const Workspace& work, size_t n) {
    if constexpr (Isa::IS_INT8)
        return Int8Rows{work.inner.get(), work.inner_scales.get(), nullptr, n / INT8_BLOCK};
    else
        return work.inner.get();
}

// Where the columns of row `token` from `start` on go.
EMBELLAMA_INLINE Int8Row inner_operand(Workspace& work, size_t token, size_t n, size_t start) {
    return Int8Row{work.elements<uint8_t>(work.inner) + token * n + start,
                   work.inner_scales.get() + (token * n + start) / INT8_BLOCK, nullptr};
}

// Normalises rows [first, end) and makes them operands.
template <class Isa, Kind KIND>
EMBELLAMA_INLINE void normalize_rows(Workspace& work, const Shape& shape, size_t first, size_t end,
                                     const Norm& norm) {
    const size_t n = shape.n_embd;
    for (size_t token = first; token < end; token++) {
        float* row = work.rows.get() + token * n;
        const NormalizedRow<Isa> normalized(row, n, norm, shape.norm_eps);
        if constexpr (Isa::IS_INT8) {
            const auto finished = [&](size_t at) EMBELLAMA_INLINED {
                const auto value = normalized.at(at);
                Isa::store(row + at, value);
                return value;
            };
            const Int8Row out = int8_operand(work, token, n);
            find_ranges<Isa, KIND == Kind::Shifted>(n, finished, out);
            quantize_blocks<Isa, KIND == Kind::Shifted>(row, n, out);
        } else {
            auto* out = work.elements<typename Isa::Element>(work.operands) + token * n;
            for (size_t at = 0; at < n; at += Isa::LANES) {
                const auto value = normalized.at(at);
                Isa::store(row + at, value);
                Isa::store_elements(out + at, value);
            }
        }
    }
}

// A panel as it is multiplied, `start` columns from the first: unpacked where it has 16 bits.
template <class Isa>
EMBELLAMA_INLINE const uint32_t* panel_at(const Linear& linear, size_t start, size_t width,
                                          Room& room) {
    const size_t at = start * (linear.n_in / Isa::PER_UNIT);
    if constexpr (packing_of<Isa>().keeps_halves) {
        if (linear.halves.size() > 0) {
            const uint16_t* halves = linear.halves.get() + at;
            auto* out = reinterpret_cast<float*>(room.panel.get());
            const size_t n = width * linear.n_in;
            const bool is_bf16 = linear.half_type == TensorType::BF16;
            for (size_t i = 0; i < n; i += Isa::LANES)
                Isa::store(out + i,
                           is_bf16 ? Isa::load_bf16(halves + i) : Isa::load_f16(halves + i));
            return room.panel.get();
        }
    }
    return linear.panels.get() + at;
}

// Rows times one panel of up to VECTORS vectors, `start` columns from the first.
template <class Isa, Kind KIND, class Store>
EMBELLAMA_INLINE void layer_panel(Room& room, int n_vectors, size_t first, size_t n_rows,
                                  const Rows<Isa>& rows, const Linear& linear, size_t start,
                                  const Store& store) {
    if constexpr (Isa::IS_INT8) {
        const uint32_t* panel = linear.panels.get() + start * rows.n_blocks * INT8_COLUMN_UNITS;
        panel_product_int8<Isa, KIND == Kind::Shifted, Isa::INT8_VECTORS>(
            n_vectors, n_rows, rows_from(rows, first), panel, store);
    } else {
        const size_t n_units = linear.n_in / Isa::PER_UNIT;
        const uint32_t* panel = panel_at<Isa>(linear, start, (size_t)n_vectors * Isa::LANES, room);
        any_panel_product<Isa, Isa::VECTORS>(n_vectors, n_rows, rows + first * n_units, n_units,
                                             panel, n_units, store);
    }
}

// Rows times all of a layer's weights, by all threads of a team.
template <class Isa, Kind KIND, class Store>
EMBELLAMA_INLINE void layer_product(Workspace& work, Team& team, size_t n_rows,
                                    const Rows<Isa>& rows, const Linear& linear,
                                    const Store& store) {
    using Vec = typename Isa::Vec;
    constexpr size_t PANEL = (size_t)Isa::LANES * Isa::VECTORS;
    Room& room = work.rooms[team.member()];
    share_panels<PANEL, Isa::ROWS>(
        team, n_rows, linear.n_out,
        [&](size_t start, size_t width, size_t first, size_t n) EMBELLAMA_INLINED {
            layer_panel<Isa, KIND>(
                room, (int)(width / Isa::LANES), first, n, rows, linear, start,
                [&](size_t row, size_t column, Vec sums) EMBELLAMA_INLINED {
                    store(first + row, start + column, sums);
                });
        });
}

}  // namespace embellama

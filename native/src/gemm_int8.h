// Products of 8-bit operands and 8-bit weights, both in blocks (int8_layout.h), with what follows
// fused into the store.
//
// Within a block sums are integers and exact: at most 32 × 255 × 128 in magnitude, and the
// correction they begin with 32 × 128 × 128, together below 2²¹. So they neither overflow nor round
// as they become floats, however long the rows are. A block's sum times both scales is added in
// float32, block after block.
#pragma once

#include "gemm.h"
#include "int8_layout.h"

namespace embellama {

EMBELLAMA_INLINE Int8Rows rows_from(const Int8Rows& rows, size_t row) {
    const size_t block = row * rows.n_blocks;
    return Int8Rows{rows.units + block * INT8_BLOCK_UNITS, rows.scales + block,
                    rows.shifts == nullptr ? nullptr : rows.shifts + block, rows.n_blocks};
}

// Integer sums of one block: ROWS rows times VECTORS vectors of columns.
template <class Isa, int ROWS, int VECTORS>
EMBELLAMA_INLINE void add_block(const uint32_t* units, size_t stride, const uint32_t* columns,
                                typename Isa::Sums (&sums)[ROWS][VECTORS]) {
#pragma GCC unroll 8
    for (size_t unit = 0; unit < INT8_BLOCK_UNITS; unit++) {
        typename Isa::Bytes weights[VECTORS];
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++)
            weights[vec] = Isa::load_bytes(columns + (unit * VECTORS + vec) * Isa::LANES);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) {
            const typename Isa::Bytes value = Isa::broadcast_bytes(units + row * stride + unit);
#pragma GCC unroll 4
            for (int vec = 0; vec < VECTORS; vec++)
                sums[row][vec] = Isa::dot_int8(sums[row][vec], value, weights[vec]);
        }
    }
}

// What the sums of a block of `rows` become and are added to.
template <class Isa, bool SHIFTED, int ROWS, int VECTORS>
EMBELLAMA_INLINE void add_to_totals(const Int8Rows& rows, size_t block, const uint32_t* constants,
                                    const typename Isa::Sums (&sums)[ROWS][VECTORS],
                                    typename Isa::Vec (&totals)[ROWS][VECTORS]) {
    const auto* scales = reinterpret_cast<const float*>(constants);
    const float* corrections = scales + VECTORS * Isa::LANES;
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
        const size_t at = row * rows.n_blocks + block;
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) {
            const auto scale =
                Isa::mul(Isa::load(scales + vec * Isa::LANES), Isa::set(rows.scales[at]));
            auto total = Isa::fma(Isa::floats(sums[row][vec]), scale, totals[row][vec]);
            if constexpr (SHIFTED)
                total = Isa::fma(Isa::load(corrections + vec * Isa::LANES),
                                 Isa::set(rows.shifts[at]), total);
            totals[row][vec] = total;
        }
    }
}

// ROWS rows of an operand times VECTORS vectors of columns of a panel.
// `store(row, column, sums)` gets LANES sums at a time.
template <class Isa, bool SHIFTED, int ROWS, int VECTORS, class Store>
EMBELLAMA_INLINE void tile_int8(const Int8Rows& rows, const uint32_t* panel, const Store& store) {
    constexpr size_t WIDTH = (size_t)VECTORS * Isa::LANES;
    typename Isa::Vec totals[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) totals[row][vec] = Isa::zero();
    }
    for (size_t block = 0; block < rows.n_blocks; block++, panel += INT8_COLUMN_UNITS * WIDTH) {
        const uint32_t* constants = panel + INT8_BLOCK_UNITS * WIDTH;
        typename Isa::Sums sums[ROWS][VECTORS];
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) {
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++)
                sums[row][vec] = SHIFTED ? Isa::no_sums()
                                         : Isa::load_sums(constants + WIDTH + vec * Isa::LANES);
        }
        add_block<Isa, ROWS, VECTORS>(rows.units + block * INT8_BLOCK_UNITS,
                                      rows.n_blocks * INT8_BLOCK_UNITS, panel, sums);
        add_to_totals<Isa, SHIFTED, ROWS, VECTORS>(rows, block, constants, sums, totals);
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) store(row, vec * Isa::LANES, totals[row][vec]);
    }
}

template <class Isa, bool SHIFTED, int VECTORS, int ROWS, class Store>
EMBELLAMA_INLINE void last_rows_int8(int n_rows, const Int8Rows& rows, const uint32_t* panel,
                                     const Store& store) {
    if constexpr (ROWS > 0) {
        if (n_rows == ROWS)
            tile_int8<Isa, SHIFTED, ROWS, VECTORS>(rows, panel, store);
        else
            last_rows_int8<Isa, SHIFTED, VECTORS, ROWS - 1>(n_rows, rows, panel, store);
    }
}

// Any number of rows times one panel of up to VECTORS vectors.
template <class Isa, bool SHIFTED, int VECTORS, class Store>
EMBELLAMA_INLINE void panel_product_int8(int n_vectors, size_t n_rows, const Int8Rows& rows,
                                         const uint32_t* panel, const Store& store) {
    if constexpr (VECTORS > 0) {
        if (n_vectors != VECTORS) {
            panel_product_int8<Isa, SHIFTED, VECTORS - 1>(n_vectors, n_rows, rows, panel, store);
            return;
        }
        size_t done = 0;
        const auto below = [&](int row, int column, typename Isa::Vec sums) EMBELLAMA_INLINED {
            store(done + row, column, sums);
        };
        for (; done + Isa::INT8_ROWS <= n_rows; done += Isa::INT8_ROWS)
            tile_int8<Isa, SHIFTED, Isa::INT8_ROWS, VECTORS>(rows_from(rows, done), panel, below);
        last_rows_int8<Isa, SHIFTED, VECTORS, Isa::INT8_ROWS - 1>(
            (int)(n_rows - done), rows_from(rows, done), panel, below);
    }
}

// Rows times all panels of `n_columns` columns, a multiple of LANES. Both are SHIFTED, or plain.
template <class Isa, bool SHIFTED, class Store>
EMBELLAMA_INLINE void product_int8(size_t n_rows, const Int8Rows& rows, const uint32_t* panels,
                                   size_t n_columns, const Store& store) {
    constexpr size_t PANEL = (size_t)Isa::LANES * Isa::INT8_VECTORS;
    const size_t column_units = rows.n_blocks * INT8_COLUMN_UNITS;
    for (size_t start = 0; start < n_columns; start += PANEL) {
        const size_t width = start + PANEL <= n_columns ? PANEL : n_columns - start;
        panel_product_int8<Isa, SHIFTED, Isa::INT8_VECTORS>(
            (int)(width / Isa::LANES), n_rows, rows, panels + start * column_units,
            [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                store(row, start + column, sums);
            });
    }
}

}  // namespace embellama

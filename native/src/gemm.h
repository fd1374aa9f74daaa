// Products of operands and packed weights, with what follows fused into the store.
//
// Everything that is multiplied is a sequence of 32-bit units (operand.h), so that one tile serves
// every number format; the instruction set says what `dot` does with two units.
#pragma once

#include <cstddef>
#include <cstdint>

#define EMBELLAMA_INLINE inline __attribute__((always_inline))
// For a lambda that becomes part of a kernel.
#define EMBELLAMA_INLINED __attribute__((always_inline))

namespace embellama {

// ROWS rows of an operand, `stride` units apart, times VECTORS vectors of columns of a panel.
// `store(row, column, sums)` gets LANES sums at a time.
template <class Isa, int ROWS, int VECTORS, class Store>
EMBELLAMA_INLINE void tile(const uint32_t* rows, size_t stride, const uint32_t* panel,
                           size_t n_units, const Store& store) {
    typename Isa::Vec sums[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) sums[row][vec] = Isa::zero();
    }
    for (size_t unit = 0; unit < n_units; unit++) {
        typename Isa::Units columns[VECTORS];
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++)
            columns[vec] = Isa::load_units(panel + (unit * VECTORS + vec) * Isa::LANES);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) {
            const typename Isa::Units value = Isa::broadcast_unit(rows + row * stride + unit);
#pragma GCC unroll 4
            for (int vec = 0; vec < VECTORS; vec++)
                sums[row][vec] = Isa::dot(sums[row][vec], value, columns[vec]);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
        for (int vec = 0; vec < VECTORS; vec++) store(row, vec * Isa::LANES, sums[row][vec]);
    }
}

template <class Isa, int VECTORS, int ROWS, class Store>
EMBELLAMA_INLINE void last_rows(int n_rows, const uint32_t* rows, size_t stride,
                                const uint32_t* panel, size_t n_units, const Store& store) {
    if constexpr (ROWS > 0) {
        if (n_rows == ROWS)
            tile<Isa, ROWS, VECTORS>(rows, stride, panel, n_units, store);
        else
            last_rows<Isa, VECTORS, ROWS - 1>(n_rows, rows, stride, panel, n_units, store);
    }
}

// Any number of rows times a panel of VECTORS × LANES columns.
template <class Isa, int VECTORS, class Store>
EMBELLAMA_INLINE void panel_product(size_t n_rows, const uint32_t* rows, size_t stride,
                                    const uint32_t* panel, size_t n_units, const Store& store) {
    size_t done = 0;
    const auto below = [&](int row, int column, typename Isa::Vec sums) EMBELLAMA_INLINED {
        store(done + row, column, sums);
    };
    for (; done + Isa::ROWS <= n_rows; done += Isa::ROWS)
        tile<Isa, Isa::ROWS, VECTORS>(rows + done * stride, stride, panel, n_units, below);
    last_rows<Isa, VECTORS, Isa::ROWS - 1>((int)(n_rows - done), rows + done * stride, stride,
                                           panel, n_units, below);
}

// Rows times one panel of up to VECTORS vectors.
template <class Isa, int VECTORS, class Store>
EMBELLAMA_INLINE void any_panel_product(int n_vectors, size_t n_rows, const uint32_t* rows,
                                        size_t stride, const uint32_t* panel, size_t n_units,
                                        const Store& store) {
    if constexpr (VECTORS > 0) {
        if (n_vectors == VECTORS)
            panel_product<Isa, VECTORS>(n_rows, rows, stride, panel, n_units, store);
        else
            any_panel_product<Isa, VECTORS - 1>(n_vectors, n_rows, rows, stride, panel, n_units,
                                                store);
    }
}

// Rows times all panels of `n_columns` columns, a multiple of LANES.
template <class Isa, class Store>
EMBELLAMA_INLINE void product(size_t n_rows, const uint32_t* rows, size_t stride,
                              const uint32_t* panels, size_t n_columns, size_t n_units,
                              const Store& store) {
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    for (size_t start = 0; start < n_columns; start += PANEL) {
        const size_t width = start + PANEL <= n_columns ? PANEL : n_columns - start;
        any_panel_product<Isa, Isa::VECTORS>(
            (int)(width / Isa::LANES), n_rows, rows, stride, panels + start * n_units, n_units,
            [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                store(row, start + column, sums);
            });
    }
}

}  // namespace embellama

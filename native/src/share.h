// How a step of the forward pass is cut into items for the threads of a team.
#pragma once

#include "gemm.h"
#include "team.h"

namespace embellama {

// Calls work(item) for the items of a step that this thread gets; returns when all are done.
template <class Work>
EMBELLAMA_INLINE void share(Team& team, size_t n_items, const Work& work) {
    for (size_t item; (item = team.take_item()) < n_items; team.finish_item()) work(item);
    team.end_step(n_items);
}

// Items of each thread of a team where a step can be cut finely: several, so that one whose core
// is taken away for a moment does not keep the others waiting for long.
constexpr size_t ITEMS_EACH = 4;

EMBELLAMA_INLINE size_t rounded_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

// Calls work(first, end) for ranges of rows.
template <class Work>
EMBELLAMA_INLINE void share_rows(Team& team, size_t n_rows, const Work& work) {
    const size_t n_ranges = team.is_alone() ? 1 : 2 * team.n_members();
    const size_t each = (n_rows + n_ranges - 1) / n_ranges;
    share(team, (n_rows + each - 1) / each, [&](size_t item) EMBELLAMA_INLINED {
        const size_t first = item * each;
        work(first, first + each < n_rows ? first + each : n_rows);
    });
}

// Calls work(start, n_vectors, first, n_rows) for the panels of `n_columns` columns and, where
// there are not enough of those for all threads, ranges of rows.
template <class Isa, class Work>
EMBELLAMA_INLINE void share_panels(Team& team, size_t n_rows, size_t n_columns, const Work& work) {
    constexpr size_t PANEL = Isa::LANES * Isa::VECTORS;
    const size_t n_panels = (n_columns + PANEL - 1) / PANEL;
    size_t each = n_rows;
    if (!team.is_alone()) {
        const size_t n_wanted = ITEMS_EACH * team.n_members();
        const size_t n_ranges = (n_wanted + n_panels - 1) / n_panels;
        each = rounded_up((n_rows + n_ranges - 1) / n_ranges, Isa::ROWS);
    }
    const size_t n_ranges = (n_rows + each - 1) / each;
    share(team, n_panels * n_ranges, [&](size_t item) EMBELLAMA_INLINED {
        const size_t start = item / n_ranges * PANEL, first = item % n_ranges * each;
        const size_t width = start + PANEL <= n_columns ? PANEL : n_columns - start;
        work(start, (int)(width / Isa::LANES), first,
             first + each < n_rows ? each : n_rows - first);
    });
}

// Rows times all panels of `n_columns` columns, a multiple of LANES, by all threads of a team.
template <class Isa, class Store>
EMBELLAMA_INLINE void shared_product(Team& team, size_t n_rows, const uint32_t* rows,
                                     const uint32_t* panels, size_t n_columns, size_t n_units,
                                     const Store& store) {
    share_panels<Isa>(team, n_rows, n_columns,
                      [&](size_t start, int n_vectors, size_t first, size_t n) EMBELLAMA_INLINED {
        any_panel_product<Isa, Isa::VECTORS>(
            n_vectors, n, rows + first * n_units, n_units, panels + start * n_units, n_units,
            [&](size_t row, size_t column, typename Isa::Vec sums) EMBELLAMA_INLINED {
                store(first + row, start + column, sums);
            });
    });
}

}  // namespace embellama

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

// Calls work(start, width, first, n_rows) for the panels of `n_columns` columns and, where there
// are not enough of those for all threads, ranges of rows in steps of STEP.
template <size_t PANEL, size_t STEP, class Work>
EMBELLAMA_INLINE void share_panels(Team& team, size_t n_rows, size_t n_columns, const Work& work) {
    const size_t n_panels = (n_columns + PANEL - 1) / PANEL;
    size_t each = n_rows;
    if (!team.is_alone()) {
        const size_t n_wanted = ITEMS_EACH * team.n_members();
        const size_t n_parts = (n_wanted + n_panels - 1) / n_panels;
        each = rounded_up((n_rows + n_parts - 1) / n_parts, STEP);
    }
    const size_t n_ranges = (n_rows + each - 1) / each;
    share(team, n_panels * n_ranges, [&](size_t item) EMBELLAMA_INLINED {
        const size_t start = item / n_ranges * PANEL, first = item % n_ranges * each;
        work(start, start + PANEL <= n_columns ? PANEL : n_columns - start, first,
             first + each < n_rows ? each : n_rows - first);
    });
}

}  // namespace embellama

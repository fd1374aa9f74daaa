"""The k nearest of many rows: exact, in blocks, the same every time."""

from __future__ import annotations

import numpy as np

from embellama.similarity.arrays import (
    TILE,
    AnyArray,
    Float64Array,
    as_count,
    as_floats,
    blocks,
    check_axes,
    check_widths,
    float32_block,
    float64_block,
)
from embellama.similarity.metrics import SIMILARITIES, Metric, check_metric, paired
from embellama.similarity.nearest import Nearest, TopK, candidates, collect, round_up
from embellama.similarity.rows import FloatRows, IntegerRows
from embellama.similarity.screening import Screen
from embellama.types import FloatArray

BLOCK_BYTES = 16 << 20
"""A block in float32. It is read twice and should fit into the cache that cores share. Smaller
blocks cost time on a busy machine: the threads of the BLAS wait for each other after each.
"""

QUERY_GROUP = 256
"""Queries at a time; with a block of 384 components their ranks take 11 MB."""


def top_k(
    queries: AnyArray,
    vectors: AnyArray,
    k: int,
    *,
    metric: Metric = "cosine",
    block_rows: int | None = None,
) -> TopK:
    """Find the k nearest rows of each query.

    Every row is considered. A score is the float64 value of the formula for these two vectors,
    rounded to float32; rows of equal score stand in the order of their indices. Neither depends
    on the blocks, on other queries, or on the number of threads.

    Beside the result, a block of rows and its ranks are held: some 40 MB by default. Rows of a
    ``numpy.memmap`` are read a block at a time. Blocks the calling thread; may be called from any
    number of threads.

    Args:
        queries: float (n_queries, n_embd), or (n_embd,) for one.
        vectors: float (n, n_embd).
        k: How many rows of each; all of them, sorted, where there are no more than that.
        metric: What is near: a high ``cosine`` or ``dot``, or a low distance.
        block_rows: Rows at a time; None chooses by their length. Its ranks take
            ``1024 * block_rows`` bytes for 256 queries or more.

    Returns:
        ``(indices, scores)``: int64 and float32 (n_queries, min(k, n)), or (min(k, n),) for one
        query, the nearest first.

    Raises:
        InvalidInputError: Shapes that do not fit, NaN or infinity on either side, ``k`` below 1.
        InvalidInputTypeError: A side is not of floats.
    """
    check_metric(metric)
    queries, vectors = as_floats(("queries", queries), ("vectors", vectors))
    check_axes("queries", queries, (1, 2))
    check_axes("vectors", vectors, (2,))
    check_widths("queries", queries, "vectors", vectors)
    return nearest_rows(
        float64_block("queries", np.atleast_2d(queries)),
        FloatRows("vectors", vectors),
        as_count("k", k),
        metric=metric,
        one=queries.ndim == 1,
        block_rows=block_rows,
    )


def nearest_rows(
    queries: Float64Array,
    rows: FloatRows | IntegerRows,
    k: int,
    *,
    metric: Metric,
    one: bool,
    block_rows: int | None = None,
) -> TopK:
    """Search checked queries in rows of any kind.

    Args:
        queries: float64 (n_queries, n_embd).
        rows: What to search, n_embd wide.
        k: How many of each.
        metric: Which comparison.
        one: The caller passed one vector, and gets one row.
        block_rows: Rows at a time.

    Returns:
        As ``top_k``.

    Raises:
        InvalidInputError: A row holds NaN or infinity, or ``block_rows`` is below 1.
    """
    groups = list(blocks(len(queries), QUERY_GROUP))
    screens = [Screen(metric, queries[group]) for group in groups]
    found = [Nearest(min(k, max(len(rows), 1))) for _ in queries]
    if block_rows is None:
        block_rows = max(1, BLOCK_BYTES // (4 * queries.shape[1]))
    for part in blocks(len(rows), as_count("block_rows", block_rows)):
        block, squares = float32_block(rows.name, rows.take(part), part.start)
        for group, screen in zip(groups, screens, strict=True):
            _search_block(
                screen, queries[group], found[group], block, squares, k, metric, part.start
            )
        rows.let_go(part)
    return collect(found, min(k, len(rows)), negate=metric in SIMILARITIES, one=one)


def _search_block(
    screen: Screen,
    queries: Float64Array,
    found: list[Nearest],
    block: FloatArray,
    squares: FloatArray,
    k: int,
    metric: Metric,
    first: int,
) -> None:
    ranks = screen.ranks(block, squares)
    errors = screen.errors(squares)
    limits = screen.limits(np.array([nearest.limit for nearest in found])) + errors
    for index in np.flatnonzero(ranks.min(axis=1) <= limits):
        slack = 2.0 * float(errors[index])
        chosen = candidates(ranks[index], round_up(limits[index]), k, slack=slack)
        query = queries[index, np.newaxis]
        for part in blocks(len(chosen), TILE):
            places = chosen[part]
            scores = paired(metric, query, block[places].astype(np.float64)).astype(np.float32)
            found[index].add(places + first, -scores if metric in SIMILARITIES else scores)

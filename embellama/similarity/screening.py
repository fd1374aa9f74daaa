"""Ranks of a block in float32, by matrix products, with a bound of their error.

A float32 product of two vectors depends, in its last digits, on the block it is computed in. It
serves to rule rows out; what may be among the nearest is computed again, row by row, in float64.
So results depend neither on the size of blocks nor on the BLAS, and duplicates really are equal.
"""

from __future__ import annotations

import numpy as np

from embellama.similarity.arrays import Float64Array
from embellama.similarity.metrics import Metric, crossed, norms, unit_rows
from embellama.types import FloatArray

UNIT_ROUNDOFF = 2.0**-24
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

TINY_SQUARE = 1e-30
"""Times n_embd: below this a squared norm has lost digits to underflow."""


class Screen:
    """Rules rows out for a group of queries. Ranks are lower for what is nearer.

    Args:
        metric: Which comparison.
        queries: float64 (n_queries, n_embd).
    """

    def __init__(self, metric: Metric, queries: Float64Array) -> None:
        self._metric = metric
        self._queries = queries
        self._norms = norms(queries)
        match metric:
            case "cosine" | "angular":
                factors = -unit_rows(queries)
            case "euclidean":
                factors = -2.0 * queries
            case "dot" | "manhattan":
                factors = -queries
        self._factors: FloatArray = factors.astype(np.float32)

    def ranks(self, block: FloatArray, squares: FloatArray) -> FloatArray:
        """Rank the rows of a block for each query.

        Args:
            block: float32 (n, n_embd).
            squares: float32 (n,) squared norms of its rows.

        Returns:
            float32 (n_queries, n): minus the similarity, the squared distance less the query's own
            squared norm, or the distance by city blocks.
        """
        if self._metric == "manhattan":
            return self._city_blocks(block)
        ranks: FloatArray = self._factors @ block.T
        if self._metric == "euclidean":
            ranks += squares
        elif self._metric != "dot":
            tiny = squares < TINY_SQUARE * block.shape[1]
            ranks *= 1.0 / np.sqrt(np.where(tiny, np.float32(1.0), squares))
            if tiny.any():
                exact = crossed("cosine", self._queries, block[tiny].astype(np.float64))
                ranks[:, tiny] = -exact
        return ranks

    def errors(self, squares: FloatArray) -> Float64Array:
        """Bound how far a rank of this block can be off, rounding of the score included.

        Source: N. Higham, Accuracy and Stability of Numerical Algorithms, §3.1: a sum of n
        products is within n u / (1 - n u) of the sum of their magnitudes, in whatever order it is
        taken; doubled here, with room for the few operations around it.

        Returns:
            float64 (n_queries,).
        """
        n_embd = self._queries.shape[1]
        relative = 2.0 * (n_embd + 8) * UNIT_ROUNDOFF
        longest = float(np.sqrt(squares.max(initial=0.0))) + SMALLEST_NORMAL
        match self._metric:
            case "cosine" | "angular":
                scale = np.ones_like(self._norms)
            case "dot":
                scale = self._norms * longest
            case "euclidean":
                scale = (self._norms + longest) ** 2
            case "manhattan":
                scale = np.sqrt(n_embd) * (self._norms + longest)
        bounds: Float64Array = relative * scale + n_embd * SMALLEST_NORMAL
        return bounds

    def limits(self, scores: Float64Array) -> Float64Array:
        """Turn the ranks to beat, as ``Nearest`` counts them, into this screen's own.

        Args:
            scores: float64 (n_queries,): minus the similarity, or the distance; may be infinite.
        """
        match self._metric:
            case "cosine" | "dot" | "manhattan":
                return scores
            case "angular":
                return np.where(np.isinf(scores), np.inf, -np.cos(np.pi * np.minimum(scores, 1.0)))
            case "euclidean":
                return scores**2 - self._norms**2

    def _city_blocks(self, block: FloatArray) -> FloatArray:
        ranks = np.empty((len(self._factors), len(block)), dtype=np.float32)
        differences = np.empty_like(block)
        for factor, into in zip(self._factors, ranks, strict=True):
            np.add(block, factor, out=differences)
            np.abs(differences, out=differences)
            differences.sum(axis=1, out=into)
        return ranks

"""The k nearest rows of one query, kept while blocks of candidates come in."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embellama.similarity.arrays import AnyArray
from embellama.types import FloatArray

IndexArray: TypeAlias = NDArray[np.int64]


class TopK(NamedTuple):
    """What a search found, the nearest first; of equals the lower index comes first.

    Attributes:
        indices: int64 (n_queries, k) positions of rows; (k,) where the query was one vector.
        scores: float32 of the same shape, in the metric's own unit: descending for similarities,
            ascending for distances.
    """

    indices: IndexArray
    scores: FloatArray


class Nearest:
    """The nearest rows so far. A rank is a number of which the lower is nearer.

    Attributes:
        limit: The rank to beat or to equal; infinite until ``k`` rows are known. It may lag behind
            what was added, never run ahead.
    """

    def __init__(self, k: int) -> None:
        self.limit = np.inf
        self._k = k
        self._indices: list[IndexArray] = []
        self._ranks: list[FloatArray] = []
        self._n_kept = 0

    def add(self, indices: IndexArray, ranks: FloatArray) -> None:
        """Take candidates: int64 (n,) and float32 (n,), each index once in the life of this."""
        self._indices.append(indices)
        self._ranks.append(ranks)
        self._n_kept += len(indices)
        # sorting each time would make k = n quadratic; never sorting would let everything in
        known = self._n_kept >= self._k and np.isinf(self.limit)
        if known or self._n_kept >= 2 * self._k + 64:
            self._sort()

    def result(self) -> tuple[IndexArray, FloatArray]:
        """Return indices and ranks of the nearest, at most ``k``, the nearest first."""
        self._sort()
        return self._indices[0], self._ranks[0]

    def _sort(self) -> None:
        indices = np.concatenate([np.empty(0, dtype=np.int64), *self._indices])
        ranks = np.concatenate([np.empty(0, dtype=np.float32), *self._ranks])
        order = np.lexsort((indices, ranks))[: self._k]
        self._indices, self._ranks = [indices[order]], [ranks[order]]
        self._n_kept = len(order)
        if self._n_kept == self._k:
            self.limit = float(ranks[order[-1]])


def candidates(ranks: AnyArray, limit: float, k: int, *, slack: float = 0.0) -> IndexArray:
    """Choose the places of a block that may be among the k nearest.

    Args:
        ranks: (n,), the lower the nearer, each within half of ``slack`` of the truth.
        limit: Ranks above this are out.
        k: How many are wanted.
        slack: Twice the error of a rank.

    Returns:
        int64 (m,) ascending places.
    """
    chosen = np.flatnonzero(ranks <= limit)
    if len(chosen) > 4 * k + 64:
        among = ranks[chosen]
        nearest = np.argpartition(among, k - 1)[:k]
        chosen = chosen[among <= round_up(float(among[nearest].max()) + slack)]
    return chosen


def round_up(limit: float) -> float:
    """Take the next float32 above: ranks are float32, and so is what numpy compares them to."""
    return float(np.nextafter(np.float32(limit), np.float32(np.inf)))


def collect(found: list[Nearest], n_columns: int, *, negate: bool, one: bool) -> TopK:
    """Lay the results of all queries side by side.

    Args:
        found: One for each query, all of the same length.
        n_columns: That length.
        negate: Ranks are similarities with the sign turned over.
        one: The caller passed one vector, and gets one row.
    """
    shape = (len(found), n_columns)
    results = [nearest.result() for nearest in found]
    indices = np.array([row for row, _ in results], dtype=np.int64).reshape(shape)
    scores = np.array([row for _, row in results], dtype=np.float32).reshape(shape)
    if negate:
        scores = 0.0 - scores  # rather than -scores: no negative zero for what is simply zero
    return TopK(indices[0], scores[0]) if one else TopK(indices, scores)

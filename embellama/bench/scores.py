"""How good vectors are: near to a reference, in the order people gave, finding what they should."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embellama.similarity.metrics import paired
from embellama.similarity.search import top_k
from embellama.types import FloatArray

NEIGHBOURS = 10
"""How many nearest texts are compared, and how many documents a query is judged by."""

Float64Array = NDArray[np.float64]


def cosines(a: FloatArray, b: FloatArray) -> Float64Array:
    """Compare each row with the row opposite.

    Args:
        a: float32 (n, n_embd).
        b: float32 (n, n_embd).

    Returns:
        float64 (n,), -1 to 1.
    """
    return paired("cosine", a.astype(np.float64), b.astype(np.float64))


def neighbours(vectors: FloatArray) -> NDArray[np.int64]:
    """Find each row's nearest other rows.

    Args:
        vectors: float32 (n, n_embd).

    Returns:
        int64 (n, min(`NEIGHBOURS`, n - 1)).
    """
    n = len(vectors)
    k = min(NEIGHBOURS, n - 1)
    if k < 1:
        return np.zeros((n, 0), dtype=np.int64)
    found, _ = top_k(vectors, vectors, k + 1)
    others = found != np.arange(n)[:, np.newaxis]
    # where many rows are equal, a row may not be among its own nearest: the last one goes then
    others[others.all(axis=1), -1] = False
    nearest: NDArray[np.int64] = found[others].reshape(n, k)
    return nearest


def overlap(found: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Return the share of expected neighbours that were found, on average; 1 if there are none.

    Args:
        found: int64 (n, k).
        expected: int64 (n, k).
    """
    if not expected.size:
        return 1.0
    shared = (found[:, :, np.newaxis] == expected[:, np.newaxis, :]).sum()
    return float(shared / expected.size)


def average_ranks(values: Float64Array) -> Float64Array:
    """Rank values from 1 upwards; equal ones share the mean of their ranks.

    Args:
        values: float64 (n,).

    Returns:
        float64 (n,).
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64Array = (last - (counts - 1) / 2)[places]
    return ranks


def spearman(a: Float64Array, b: Float64Array) -> float:
    """Return the rank correlation of two series, -1 to 1; 0 if either is constant.

    Pearson's correlation of the ranks, where ties have average ranks. Source: C. Spearman, "The
    Proof and Measurement of Association between Two Things", 1904; with ties as in M. G. Kendall,
    "Rank Correlation Methods", ch. 3.

    Args:
        a: float64 (n,).
        b: float64 (n,).
    """
    x, y = average_ranks(a), average_ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale else 0.0


def ndcg(ranked: Sequence[int], judged: Mapping[int, float], k: int = NEIGHBOURS) -> float:
    """Return the normalised discounted cumulative gain of a ranking at a depth, 0 to 1.

    The gain is the judgement itself, discounted by log2(rank + 1), and divided by that of the best
    order there is. What is judged below 0, or not at all, gains 0. Source: K. Järvelin, J.
    Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques", 2002, in the form trec_eval
    computes as ndcg_cut.

    Args:
        ranked: Documents, the best first.
        judged: How relevant documents are.
        k: How many of the ranking count.
    """
    best = sorted((gain for gain in judged.values() if gain > 0), reverse=True)
    ideal = _discounted(best[:k])
    got = _discounted([max(judged.get(document, 0.0), 0.0) for document in ranked[:k]])
    return got / ideal if ideal else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))

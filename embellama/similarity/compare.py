"""One vector with one, one with many, all with all."""

from __future__ import annotations

import numpy as np

from embellama.similarity.arrays import (
    TILE,
    AnyArray,
    as_floats,
    blocks,
    check_axes,
    check_widths,
    float64_block,
)
from embellama.similarity.metrics import Metric, check_metric, crossed, paired, unit_rows
from embellama.types import FloatArray


def cosine(a: AnyArray, b: AnyArray) -> float:
    """Return the cosine of the angle between two vectors, -1 to 1; 0 if either is zero.

    Args:
        a: float (n_embd,).
        b: float (n_embd,).

    Raises:
        InvalidInputError: Shapes that do not fit, NaN or infinity.
        InvalidInputTypeError: A side is not of floats.
    """
    return _one_to_one("cosine", a, b)


def dot(a: AnyArray, b: AnyArray) -> float:
    """Return the inner product of two vectors; arguments and errors as for ``cosine``."""
    return _one_to_one("dot", a, b)


def euclidean(a: AnyArray, b: AnyArray) -> float:
    """Return the straight distance of two vectors; arguments and errors as for ``cosine``."""
    return _one_to_one("euclidean", a, b)


def manhattan(a: AnyArray, b: AnyArray) -> float:
    """Return the sum of the absolute differences; arguments and errors as for ``cosine``."""
    return _one_to_one("manhattan", a, b)


def angular(a: AnyArray, b: AnyArray) -> float:
    """Return the angle between two vectors divided by pi, 0 to 1; 0.5 if either is zero.

    Arguments and errors as for ``cosine``. The similarity that goes with it is 1 less this.
    Source: https://en.wikipedia.org/wiki/Cosine_similarity#Angular_distance_and_similarity
    """
    return _one_to_one("angular", a, b)


def one_to_many(query: AnyArray, vectors: AnyArray, *, metric: Metric = "cosine") -> FloatArray:
    """Compare one vector with each row.

    Args:
        query: float (n_embd,).
        vectors: float (n, n_embd).
        metric: Which comparison.

    Returns:
        float32 (n,), summed in float64.

    Raises:
        InvalidInputError: Shapes that do not fit, NaN or infinity, an unknown metric.
        InvalidInputTypeError: A side is not of floats.
    """
    check_metric(metric)
    query, vectors = as_floats(("query", query), ("vectors", vectors))
    check_axes("query", query, (1,))
    check_axes("vectors", vectors, (2,))
    check_widths("query", query, "vectors", vectors)
    one = float64_block("query", query[np.newaxis])
    out = np.empty(len(vectors), dtype=np.float32)
    for part in blocks(len(vectors), TILE):
        out[part] = paired(metric, one, float64_block("vectors", vectors[part], part.start))
    return out


def pairwise(a: AnyArray, b: AnyArray | None = None, *, metric: Metric = "cosine") -> FloatArray:
    """Compare every row of one array with every row of another, or of itself.

    Beside the result, memory for two tiles of 1,024 rows and what lies between them is used.

    Args:
        a: float (n, n_embd).
        b: float (m, n_embd); None compares ``a`` with itself.
        metric: Which comparison.

    Returns:
        float32 (n, m), computed in float64.

    Raises:
        InvalidInputError: Shapes that do not fit, NaN or infinity, an unknown metric.
        InvalidInputTypeError: A side is not of floats.
    """
    check_metric(metric)
    a, b = as_floats(("a", a), ("b", a if b is None else b))
    check_axes("a", a, (2,))
    check_axes("b", b, (2,))
    check_widths("a", a, "b", b)
    out = np.empty((len(a), len(b)), dtype=np.float32)
    for rows in blocks(len(a), TILE):
        left = float64_block("a", a[rows], rows.start)
        for columns in blocks(len(b), TILE):
            right = float64_block("b", b[columns], columns.start)
            out[rows, columns] = crossed(metric, left, right)
    return out


def normalize(vectors: AnyArray) -> FloatArray:
    """Scale a vector, or each row, to length 1.

    Args:
        vectors: float (n, n_embd) or (n_embd,).

    Returns:
        float32 of the same shape, a new array. A zero row stays zero.

    Raises:
        InvalidInputError: Another number of axes, NaN or infinity.
        InvalidInputTypeError: Not of floats.
    """
    (vectors,) = as_floats(("vectors", vectors))
    check_axes("vectors", vectors, (1, 2))
    rows = np.atleast_2d(vectors)
    out = np.empty(rows.shape, dtype=np.float32)
    for part in blocks(len(rows), TILE):
        out[part] = unit_rows(float64_block("vectors", rows[part], part.start))
    return out.reshape(vectors.shape)


def _one_to_one(metric: Metric, a: AnyArray, b: AnyArray) -> float:
    a, b = as_floats(("a", a), ("b", b))
    check_axes("a", a, (1,))
    check_axes("b", b, (1,))
    check_widths("a", a, "b", b)
    left, right = float64_block("a", a[np.newaxis]), float64_block("b", b[np.newaxis])
    return float(paired(metric, left, right)[0])

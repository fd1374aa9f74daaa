"""The formulas, in float64: row with its partner, and every row with every other."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from embellama.errors import InvalidInputError
from embellama.similarity.arrays import Float64Array

Metric: TypeAlias = Literal["cosine", "dot", "euclidean", "manhattan", "angular"]
"""How two vectors are compared.

``cosine`` and ``dot`` are similarities, where more is nearer; the others are distances.
"""

SIMILARITIES: frozenset[str] = frozenset({"cosine", "dot"})


def check_metric(metric: str) -> None:
    """Refuse a metric of another name.

    Raises:
        InvalidInputError: It is none of ``Metric``.
    """
    if metric not in get_args(Metric):
        known = ", ".join(get_args(Metric))
        raise InvalidInputError(f"metric is {metric!r}; choose one of {known}")


def paired(metric: Metric, a: Float64Array, b: Float64Array) -> Float64Array:
    """Compare each row with the row opposite.

    Each row is summed on its own in float64, so a result does not depend on what else is compared.

    Args:
        metric: Which formula.
        a: float64 (n, n_embd), or (1, n_embd) to compare one row with all of ``b``.
        b: float64 (n, n_embd).

    Returns:
        float64 (n,). Cosine with a zero vector is 0. ``angular`` is the angle divided by pi, from 0
        (same direction) to 1 (opposite), and so 0.5 with a zero vector.
        Source: https://en.wikipedia.org/wiki/Cosine_similarity#Angular_distance_and_similarity;
        the angle as 2 atan2(|u - v|, |u + v|) of the unit vectors, which unlike the arc cosine is
        exact for small angles: W. Kahan, "How Futile are Mindless Assessments of Roundoff", §12.
    """
    match metric:
        case "dot":
            return _products(a, b)
        case "cosine":
            return _cosines(_products(a, b), norms(a) * norms(b))
        case "euclidean":
            return norms(a - b)
        case "manhattan":
            differences = a - b
            distances: Float64Array = np.abs(differences, out=differences).sum(axis=1)
            return distances
        case "angular":
            u, v = unit_rows(a), unit_rows(b)
            angle: Float64Array = 2.0 * np.arctan2(norms(u - v), norms(u + v)) / np.pi
            either_zero = ~(u.any(axis=1) & v.any(axis=1))
            angle[either_zero] = 0.5
            return angle


def crossed(metric: Metric, a: Float64Array, b: Float64Array) -> Float64Array:
    """Compare every row of ``a`` with every row of ``b``: matrix products where they serve.

    Args:
        metric: Which formula, as in ``paired``.
        a: float64 (n, n_embd).
        b: float64 (m, n_embd).

    Returns:
        float64 (n, m), within 1e-7 of ``paired`` for unit vectors: euclidean and angular lose half
        of float64's digits near 0.
    """
    match metric:
        case "dot":
            return a @ b.T
        case "cosine":
            return _cosines(a @ b.T, norms(a)[:, np.newaxis] * norms(b))
        case "angular":
            return np.arccos(crossed("cosine", a, b)) / np.pi
        case "euclidean":
            squares = _products(a, a)[:, np.newaxis] + _products(b, b) - 2.0 * (a @ b.T)
            return np.sqrt(np.maximum(squares, 0.0))
        case "manhattan":
            return _city_blocks(a, b)


def norms(rows: Float64Array) -> Float64Array:
    """Return the Euclidean norm of each row."""
    return np.sqrt(_products(rows, rows))


def unit_rows(rows: Float64Array) -> Float64Array:
    """Scale each row to length 1; a zero row stays zero."""
    lengths = norms(rows)
    lengths[lengths == 0.0] = 1.0
    return rows / lengths[:, np.newaxis]


def _products(a: Float64Array, b: Float64Array) -> Float64Array:
    products: Float64Array = np.einsum("ij,ij->i", a, b)
    return products


def _cosines(products: Float64Array, lengths: Float64Array) -> Float64Array:
    """Divide; lengths of float32 vectors multiply to zero only where one of them is zero."""
    lengths[lengths == 0.0] = 1.0
    return np.clip(products / lengths, -1.0, 1.0)


def _city_blocks(a: Float64Array, b: Float64Array) -> Float64Array:
    """Fill row by row with one buffer: all differences at once would be n times larger."""
    distances = np.empty((len(a), len(b)))
    differences = np.empty_like(b)
    for row, into in zip(a, distances, strict=True):
        np.subtract(b, row, out=differences)
        np.abs(differences, out=differences)
        differences.sum(axis=1, out=into)
    return distances

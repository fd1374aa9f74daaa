"""k-means by scikit-learn, and on the sphere: the one file that imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embellama.errors import InvalidInputError, MissingDependencyError
from embellama.similarity.arrays import (
    TILE,
    AnyArray,
    as_count,
    as_floats,
    blocks,
    check_axes,
    described,
    float32_block,
)
from embellama.similarity.compare import normalize
from embellama.types import FloatArray, IntArray

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

COSINES_AT_ONCE = 4 << 20
"""Of rows with centroids, 16 MB: fewer and larger matrix products than in tiles."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Groups of vectors.

    Attributes:
        centroids: float32 (n_clusters, n_embd); of length 1 where they were found on the sphere.
        labels: int32 (n,), the cluster of each row.
        inertia: Sum of the squared Euclidean distances of the rows to their centroids; on the
            sphere of the rows scaled to length 1, which is twice the sum of 1 - cosine.
        n_iterations: Rounds until nothing changed, or as many as were allowed.
    """

    centroids: FloatArray
    labels: IntArray
    inertia: float
    n_iterations: int


def kmeans(
    vectors: AnyArray,
    n_clusters: int,
    *,
    seed: int = 0,
    spherical: bool = False,
    n_init: int = 1,
    max_iterations: int = 300,
) -> Clusters:
    """Group rows around centroids.

    Starts from k-means++. The same seed gives the same clusters on one machine; another number of
    threads may change last digits. Fewer distinct rows than clusters leave clusters empty, and
    scikit-learn warns. A copy of the rows is made. Blocks the calling thread.

    Args:
        vectors: float (n, n_embd).
        n_clusters: At most n.
        seed: Of the random starts, 0 to 2**32 - 1.
        spherical: Compare by angle: rows and centroids have length 1, and a row belongs to the
            centroid of the highest cosine. Zero rows belong to the first.
            Source: I. Dhillon and D. Modha, https://doi.org/10.1023/A:1007612920971
        n_init: Starts, of which the best is kept.
        max_iterations: Rounds at most.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
        InvalidInputError: Not rows, NaN or infinity, more clusters than rows.
        InvalidInputTypeError: Not of floats.
    """
    (vectors,) = as_floats(("vectors", vectors))
    check_axes("vectors", vectors, (2,))
    n_clusters = as_count("n_clusters", n_clusters)
    if n_clusters > len(vectors) or vectors.shape[1] == 0:
        raise InvalidInputError(
            f"{described('vectors', vectors)}, n_clusters is {n_clusters}; ask for at most one "
            "cluster a row, of rows that have components"
        )
    if not 0 <= seed < 2**32:
        raise InvalidInputError(f"seed is {seed}; pass a whole number from 0 to 2**32 - 1")
    rows = normalize(vectors) if spherical else _checked(vectors)
    model = _start(
        n_clusters=n_clusters,
        random_state=seed,
        n_init=as_count("n_init", n_init),
        max_iter=as_count("max_iterations", max_iterations),
    )
    fitted = model.fit(rows)
    if spherical:
        return _on_the_sphere(rows, fitted.cluster_centers_, max_iterations)
    return Clusters(
        fitted.cluster_centers_, fitted.labels_, float(fitted.inertia_), int(fitted.n_iter_)
    )


def _start(**options: Any) -> KMeans:
    try:
        from sklearn.cluster import KMeans  # noqa: PLC0415 - an optional dependency, slow to import
    except ImportError as exc:
        raise MissingDependencyError(
            "kmeans needs scikit-learn: pip install 'embellama[kmeans]'", extra="kmeans"
        ) from exc
    return KMeans(**options)


def _checked(vectors: AnyArray) -> FloatArray:
    rows = np.empty(vectors.shape, dtype=np.float32)
    for part in blocks(len(vectors), TILE):
        rows[part] = float32_block("vectors", vectors[part], part.start)[0]
    return rows


def _on_the_sphere(rows: FloatArray, start: FloatArray, max_iterations: int) -> Clusters:
    """Move unit centroids until no row changes its cluster.

    scikit-learn's clusters of unit rows are near: its centroids are means, shorter than 1, which
    favours tight clusters.
    """
    centroids = normalize(start)
    labels = np.full(len(rows), -1, dtype=np.int32)
    for n_iterations in range(1, max_iterations + 1):  # noqa: B007 - read after the loop
        before, labels = labels, _nearest_centroids(rows, centroids)
        if np.array_equal(before, labels):
            break
        centroids = _mean_directions(rows, labels, centroids)
    labels = _nearest_centroids(rows, centroids)
    inertia = sum(
        float(np.square(rows[part] - centroids[labels[part]], dtype=np.float64).sum())
        for part in blocks(len(rows), TILE)
    )
    return Clusters(centroids, labels, inertia, n_iterations)


def _nearest_centroids(rows: FloatArray, centroids: FloatArray) -> IntArray:
    labels = np.empty(len(rows), dtype=np.int32)
    for part in blocks(len(rows), _rows_at_once(centroids)):
        labels[part] = (rows[part] @ centroids.T).argmax(axis=1)
    return labels


def _mean_directions(rows: FloatArray, labels: IntArray, centroids: FloatArray) -> FloatArray:
    """Sum the rows of each cluster; one that is empty, or sums to nothing, stays where it is."""
    sums: NDArray[np.float64] = np.zeros(centroids.shape)
    for part in blocks(len(rows), _rows_at_once(centroids)):
        members = np.zeros((len(centroids), part.stop - part.start), dtype=np.float32)
        members[labels[part], np.arange(part.stop - part.start)] = 1.0
        sums += members @ rows[part]
    stays = ~sums.any(axis=1)
    sums[stays] = centroids[stays]
    return normalize(sums)


def _rows_at_once(centroids: FloatArray) -> int:
    return max(TILE, COSINES_AT_ONCE // len(centroids))

import sys

import numpy as np
import pytest

from embellama.errors import InvalidInputError, InvalidInputTypeError, MissingDependencyError
from embellama.similarity import kmeans, normalize

sklearn = pytest.importorskip("sklearn", reason="needs scikit-learn: embellama[kmeans]")


def bundles(n_each=1100, n_embd=12, n_bundles=4, *, lengths=1.0):
    """Make rows around as many directions, shuffled, with the bundle of each."""
    rng = np.random.default_rng(7)
    centres = 5 * np.eye(n_bundles, n_embd)
    bundle = rng.permutation(np.repeat(np.arange(n_bundles), n_each))
    rows = centres[bundle] + rng.standard_normal((len(bundle), n_embd)) * 0.5
    return (rows * lengths).astype(np.float32), bundle


def same_grouping(labels, bundle):
    return len({*zip(labels.tolist(), bundle.tolist(), strict=True)}) == len({*bundle.tolist()})


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bundles_are_found(spherical, dtype):
    rows, bundle = bundles()
    found = kmeans(rows.astype(dtype), 4, seed=3, n_init=3, spherical=spherical)
    assert same_grouping(found.labels, bundle)
    assert (found.centroids.dtype, found.labels.dtype) == (np.float32, np.int32)
    assert found.centroids.shape == (4, 12)
    compared = normalize(rows) if spherical else rows
    distances = np.linalg.norm(compared - found.centroids[found.labels], axis=1)
    assert found.inertia == pytest.approx((distances.astype(np.float64) ** 2).sum(), rel=1e-3)
    assert found.n_iterations >= 1


def test_on_the_sphere_length_does_not_matter():
    rng = np.random.default_rng(1)
    rows, bundle = bundles(lengths=10.0 ** rng.uniform(-3, 3, (4400, 1)))
    found = kmeans(rows, 4, n_init=3, spherical=True)
    assert same_grouping(found.labels, bundle)
    np.testing.assert_allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    assert not same_grouping(kmeans(rows, 4, n_init=3).labels, bundle)


def test_on_the_sphere_nothing_is_left_to_improve():
    """Rows are with their nearest centroids, which are the mean directions of their rows."""
    rows = np.random.default_rng(2).standard_normal((3000, 10)).astype(np.float32)
    found = kmeans(rows, 7, spherical=True)
    unit = normalize(rows)
    np.testing.assert_array_equal(found.labels, (unit @ found.centroids.T).argmax(axis=1))
    means = np.stack([unit[found.labels == label].sum(axis=0) for label in range(7)])
    np.testing.assert_allclose(found.centroids, normalize(means), atol=1e-5)


@pytest.mark.parametrize("spherical", [False, True])
def test_the_seed_decides(spherical):
    rows = np.random.default_rng(2).standard_normal((500, 10)).astype(np.float32)
    before = rows.copy()
    first, again, other = (kmeans(rows, 9, seed=s, spherical=spherical) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)
    np.testing.assert_array_equal(rows, before)


def test_as_many_rounds_as_allowed():
    rows = np.random.default_rng(2).standard_normal((2000, 10)).astype(np.float32)
    assert kmeans(rows, 20, spherical=True, max_iterations=1).n_iterations == 1


@pytest.mark.parametrize("spherical", [False, True])
def test_zero_rows_and_one_cluster_a_row(spherical):
    rows = np.concatenate([np.eye(3), np.zeros((1, 3))]).astype(np.float32)
    found = kmeans(rows, 4, spherical=spherical)
    assert np.isfinite(found.centroids).all()
    assert len(set(found.labels[:3].tolist())) == 3


@pytest.mark.parametrize("spherical", [False, True])
def test_fewer_distinct_rows_than_clusters_are_told(spherical):
    from sklearn.exceptions import ConvergenceWarning

    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        found = kmeans(np.ones((5, 3), np.float32), 2, spherical=spherical)
    assert len(set(found.labels.tolist())) == 1
    assert found.inertia == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("vectors", "options", "message"),
    [
        (np.ones((3, 2)), {"n_clusters": 4}, r"vectors is float64 \(3, 2\), n_clusters is 4"),
        (np.ones((3, 0)), {"n_clusters": 1}, "rows that have components"),
        (np.ones(3), {"n_clusters": 1}, "with 1 axes; pass rows"),
        (np.ones((3, 2)), {"n_clusters": 0}, "n_clusters is 0"),
        (np.ones((3, 2)), {"n_clusters": 1, "n_init": 0}, "n_init is 0"),
        (np.ones((3, 2)), {"n_clusters": 1, "max_iterations": 0}, "max_iterations is 0"),
        (np.ones((3, 2)), {"n_clusters": 1, "seed": -1}, "seed is -1"),
        (np.full((3, 2), np.nan), {"n_clusters": 1}, "row 0 of vectors holds NaN"),
        (np.full((3, 2), np.inf), {"n_clusters": 1, "spherical": True}, "row 0 of vectors holds"),
    ],
)
def test_what_does_not_fit_is_named(vectors, options, message):
    with pytest.raises(InvalidInputError, match=message):
        kmeans(vectors, **options)


def test_codes_are_refused():
    with pytest.raises(InvalidInputTypeError, match="vectors is int8"):
        kmeans(np.ones((3, 2), np.int8), 1)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingDependencyError, match=r"embellama\[kmeans\]") as caught:
        kmeans(np.ones((3, 2)), 1)
    assert caught.value.extra == "kmeans"

import math

import numpy as np
import pytest

from embellama import similarity
from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity import normalize, one_to_many, pairwise

METRICS = ("cosine", "dot", "euclidean", "manhattan", "angular")


def random_rows(n, n_embd, seed=1, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((n, n_embd)).astype(dtype)


@pytest.mark.parametrize(
    ("metric", "a", "b", "expected"),
    [
        ("cosine", [3, 4], [6, 8], 1),
        ("cosine", [1, 0], [0, 2], 0),
        ("cosine", [1, 0], [-5, 0], -1),
        ("cosine", [1, 0], [0, 0], 0),
        ("cosine", [1e-30, 0], [1e-30, 0], 1),
        ("dot", [1, 2], [3, 4], 11),
        ("euclidean", [1, 2], [4, 6], 5),
        ("manhattan", [1, 2], [4, -2], 7),
        ("angular", [1, 0], [1, 0], 0),
        ("angular", [1, 0], [0, 1], 0.5),
        ("angular", [1, 0], [-1, 0], 1),
        ("angular", [1, 0], [1, 1], 0.25),
        ("angular", [1, 0], [0, 0], 0.5),
    ],
)
def test_definitions(metric, a, b, expected):
    one, other = np.array(a, dtype=np.float32), np.array(b, dtype=np.float32)
    value = getattr(similarity, metric)(one, other)
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-12)
    assert one_to_many(one, other[np.newaxis], metric=metric)[0] == pytest.approx(expected)
    crossed = pairwise(one[np.newaxis], other[np.newaxis], metric=metric)
    assert crossed[0, 0] == pytest.approx(expected, abs=1e-7)


def test_small_angles_keep_their_digits():
    one, other = np.array([1.0, 0.0]), np.array([1.0, 1e-6])
    assert similarity.angular(one, other) == pytest.approx(1e-6 / math.pi, rel=1e-6)


def test_neighbours_far_from_the_origin_keep_their_distance():
    one, other = np.array([4096.0, 0.0]), np.array([4096.0, 0.001])
    assert similarity.euclidean(one, other) == pytest.approx(0.001, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_the_three_forms_agree_across_tiles(metric, dtype):
    a, b = random_rows(3, 20, dtype=dtype), random_rows(1500, 20, seed=2, dtype=dtype)
    matrix = pairwise(a, b, metric=metric)
    assert matrix.dtype == np.float32
    assert matrix.shape == (3, 1500)
    for row, query in zip(matrix, a, strict=True):
        many = one_to_many(query, b, metric=metric)
        assert many.dtype == np.float32
        np.testing.assert_allclose(row, many, rtol=1e-6, atol=1e-6)
    for column in (0, 1023, 1024, 1499):
        single = getattr(similarity, metric)(a[2], b[column])
        assert matrix[2, column] == pytest.approx(single, abs=1e-6)


def test_numpy_by_hand():
    a, b = random_rows(4, 7).astype(np.float64), random_rows(5, 7, seed=2).astype(np.float64)
    differences = a[:, np.newaxis] - b
    lengths = np.linalg.norm(a, axis=1)[:, np.newaxis] * np.linalg.norm(b, axis=1)
    expected = {
        "dot": a @ b.T,
        "cosine": a @ b.T / lengths,
        "angular": np.arccos(a @ b.T / lengths) / np.pi,
        "euclidean": np.linalg.norm(differences, axis=2),
        "manhattan": np.abs(differences).sum(axis=2),
    }
    for metric in METRICS:
        np.testing.assert_allclose(pairwise(a, b, metric=metric), expected[metric], atol=1e-6)


def test_an_array_with_itself():
    rows = normalize(random_rows(6, 9))
    np.testing.assert_allclose(np.diagonal(pairwise(rows)), 1, atol=1e-6)
    for metric in ("euclidean", "manhattan", "angular"):
        own = pairwise(rows, metric=metric)
        np.testing.assert_allclose(np.diagonal(own), 0, atol=1e-7)
        np.testing.assert_allclose(own, own.T, atol=1e-6)


def test_no_rows_give_an_empty_matrix():
    empty = np.empty((0, 4), dtype=np.float32)
    assert pairwise(empty, random_rows(3, 4)).shape == (0, 3)
    assert one_to_many(np.ones(4), empty).shape == (0,)


def test_lists_and_views_are_arrays_too():
    rows = random_rows(8, 6)
    assert similarity.dot([1.0, 2.0], [3.0, 4.0]) == 11
    np.testing.assert_array_equal(pairwise(rows[::2, ::-1]), pairwise(rows[::2, ::-1].copy()))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_normalize(dtype):
    rows = np.array([[3, 4], [0, 0]], dtype=dtype)
    scaled = normalize(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(normalize(rows[0]), scaled[0])
    assert not np.shares_memory(rows, scaled)


@pytest.mark.parametrize("tiny", [1e-30, 1e-40])
def test_normalize_tiny_rows(tiny):
    np.testing.assert_allclose(normalize(np.array([tiny, tiny], dtype=np.float32)), [0.5**0.5] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pairwise(random_rows(2, 3), random_rows(2, 4)),
            r"a is float32 \(2, 3\), b is float32 \(2, 4\): the last axes differ",
        ),
        (
            lambda: one_to_many(np.ones(3), random_rows(2, 4)),
            r"query is float64 \(3,\), vectors is float32 \(2, 4\): the last axes differ",
        ),
        (
            lambda: similarity.cosine(np.ones(0), np.ones(0)),
            r"a is float64 \(0,\), b is float64 \(0,\): the last axes differ or are empty",
        ),
        (
            lambda: similarity.cosine(random_rows(1, 3), np.ones(3)),
            r"a is float32 \(1, 3\) with 2 axes; pass one vector",
        ),
        (
            lambda: one_to_many(random_rows(2, 3), random_rows(2, 3)),
            r"query is float32 \(2, 3\) with 2 axes; pass one vector",
        ),
        (lambda: pairwise(np.ones(3)), r"a is float64 \(3,\) with 1 axes; pass rows"),
        (lambda: normalize(np.ones((1, 1, 1))), r"3 axes; pass one vector .* or rows"),
        (lambda: normalize(np.float32(1)), r"float32 \(\) with 0 axes"),
        (lambda: pairwise(random_rows(2, 3), metric="cosinus"), "'cosinus'; choose one of cosine"),
        (
            lambda: one_to_many(np.ones(3), random_rows(2, 3), metric="l2"),
            "metric is 'l2'; choose one of",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


@pytest.mark.parametrize(
    "value",
    [np.ones((2, 3), np.int8), np.ones((2, 3), bool), [["a"]], [[1.0], [1.0, 2.0]], [[None]]],
)
def test_what_is_not_of_floats_is_refused_on_either_side(value):
    for a, b in ((value, random_rows(2, 3)), (random_rows(2, 3), value)):
        with pytest.raises(InvalidInputTypeError):
            pairwise(a, b)


def test_dtypes_of_both_sides_are_named():
    with pytest.raises(
        InvalidInputTypeError,
        match=r"a is float32 \(2, 3\), b is int8 \(2, 3\): .* use top_k_codes",
    ):
        pairwise(random_rows(2, 3), np.ones((2, 3), np.int8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_rows(bad):
    rows = random_rows(1500, 5)
    rows[1100, 4] = rows[1200, 0] = bad
    for call in (
        lambda: normalize(rows),
        lambda: pairwise(rows[:2], rows),
        lambda: one_to_many(rows[0], rows),
    ):
        with pytest.raises(InvalidInputError, match="row 1100 of .* holds NaN or inf") as caught:
            call()
        assert caught.value.indices == (1100, 1200)


@pytest.mark.parametrize(
    "value",
    [np.array([1e30, 1], np.float32), np.array([1e300, 1], np.float64), np.array([7e18, 7e18])],
)
def test_vectors_too_long_for_float32_are_refused(value):
    with pytest.raises(InvalidInputError, match=r"holds a component of .* no longer than 1e\+18"):
        normalize(value)

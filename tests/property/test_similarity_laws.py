import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embellama.similarity import (
    angular,
    cosine,
    euclidean,
    hamming_matrix,
    hamming_top_k,
    manhattan,
    normalize,
    one_to_many,
    pairwise,
    top_k,
)

METRICS = ("cosine", "dot", "euclidean", "manhattan", "angular")

metrics = st.sampled_from(METRICS)
# a few values make ties, the others make every magnitude that is allowed
values = st.sampled_from([0.0, 1.0, -1.0, 0.5]) | st.floats(-(2.0**56), 2.0**56, width=32)


@st.composite
def searches(draw):
    """Draw queries and vectors of one width, duplicates likely."""
    n_embd = draw(st.integers(1, 9))
    queries = draw(arrays(np.float32, (draw(st.integers(1, 3)), n_embd), elements=values))
    distinct = draw(arrays(np.float32, (draw(st.integers(1, 8)), n_embd), elements=values))
    places = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=120))
    return queries, distinct[places]


@given(searches(), metrics, st.integers(1, 130), st.integers(1, 130))
def test_top_k_is_a_stable_full_sort(search, metric, k, block_rows):
    queries, vectors = search
    indices, scores = top_k(queries, vectors, k, metric=metric, block_rows=block_rows)
    for query, found, found_scores in zip(queries, indices, scores, strict=True):
        expected = one_to_many(query, vectors, metric=metric)
        sign = -1 if metric in ("cosine", "dot") else 1
        order = np.argsort(sign * expected, kind="stable")[:k]
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(found_scores, expected[order])


@given(searches(), metrics)
def test_every_form_gives_the_same(search, metric):
    a, b = search
    matrix = pairwise(a, b, metric=metric)
    lengths = np.linalg.norm(a.astype(float), axis=1)[:, None] + np.linalg.norm(
        b.astype(float), axis=1
    )
    # float32 of the result, and what a matrix product loses of the magnitudes that cancel
    scale = {"cosine": 1.0, "angular": 1.0, "dot": lengths**2}.get(metric, lengths)
    for row, query, allowed in zip(matrix, a, np.broadcast_to(scale, matrix.shape), strict=True):
        many = one_to_many(query, b, metric=metric)
        assert (np.abs(row - many) <= 1e-6 * allowed + 1e-6 * np.abs(many)).all()


@given(searches())
def test_distances_are_distances(search):
    (a, *_), (b, *_) = search
    for distance in (euclidean, manhattan, angular):
        assert distance(a, b) == distance(b, a)
        assert distance(a, b) >= 0
    assert euclidean(a, a) == manhattan(a, a) == 0
    assert angular(a, a) == (0 if a.any() else 0.5)
    assert euclidean(a, b) <= manhattan(a, b) * (1 + 1e-12)
    assert 0 <= angular(a, b) <= 1
    assert -1 <= cosine(a, b) <= 1
    assert abs(np.cos(np.pi * angular(a, b)) - cosine(a, b)) < 1e-7


@given(searches())
def test_a_row_is_one_long_or_zero(search):
    _, rows = search
    lengths = np.linalg.norm(normalize(rows).astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, rows.any(axis=1), atol=1e-6)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 60), st.just(3))),
    st.integers(1, 70),
    st.sampled_from([np.uint8, np.int8]),
)
def test_hamming_counts_bits_and_keeps_ties_in_order(codes, k, dtype):
    matrix = hamming_matrix(codes[:2].view(dtype), codes.view(dtype))
    bits = np.unpackbits(codes, axis=1).astype(int)
    np.testing.assert_array_equal(matrix, np.abs(bits[:2, np.newaxis] - bits).sum(axis=2))
    found = hamming_top_k(codes[:2].view(dtype), codes.view(dtype), k)
    np.testing.assert_array_equal(found.indices, np.argsort(matrix, axis=1, kind="stable")[:, :k])

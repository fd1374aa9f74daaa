import numpy as np
import pytest

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity import hamming_top_k, normalize, rescore, top_k, top_k_codes

N_EMBD = 44
"""Not a multiple of 8: the last byte of packed bits is half empty."""


def random_rows(n, seed=1):
    return normalize(np.random.default_rng(seed).standard_normal((n, N_EMBD)))


def quantized(vectors, precision, ranges=None):
    """Make codes by the formulas of sentence-transformers' quantize_embeddings."""
    if precision.endswith("binary"):
        packed = np.packbits(vectors > 0, axis=-1)
        return packed if precision == "ubinary" else (packed.astype(int) - 128).astype(np.int8)
    step = (ranges[1] - ranges[0]) / 255
    buckets = np.floor((vectors - ranges[0]) / np.where(step == 0, 1, step)).clip(0, 255)
    return buckets.astype(np.uint8) if precision == "uint8" else (buckets - 128).astype(np.int8)


VECTORS = random_rows(3000)
QUERIES = normalize(VECTORS[:5] + 0.05 * random_rows(5, seed=2))
RANGES = np.stack([VECTORS.min(axis=0), VECTORS.max(axis=0)])
SIGNS = np.where(VECTORS > 0, 1.0, -1.0)


def best(scores, k):
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_found_by_hamming_and_ordered_by_the_floats_of_the_query(precision):
    codes = quantized(VECTORS, precision)
    indices, scores = top_k_codes(QUERIES, codes, 10, precision=precision, oversampling=3)
    for query, found, found_scores in zip(QUERIES, indices, scores, strict=True):
        first = hamming_top_k(quantized(query, precision), codes, 30).indices
        all_scores = (SIGNS[first] @ query.astype(np.float64)).astype(np.float32)
        order = np.lexsort((first, -all_scores))[:10]
        np.testing.assert_array_equal(found, first[order])
        np.testing.assert_allclose(found_scores, all_scores[order], rtol=1e-6)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_enough_oversampling_is_a_search_of_everything(precision):
    codes = quantized(VECTORS, precision)
    found = top_k_codes(QUERIES, codes, 10, precision=precision, oversampling=300)
    order, scores = best((QUERIES.astype(np.float64) @ SIGNS.T).astype(np.float32), 10)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_integers_stand_for_the_middle_of_their_bucket(precision):
    codes = quantized(VECTORS, precision, RANGES)
    found = top_k_codes(QUERIES, codes, 10, precision=precision, ranges=RANGES)
    exact = top_k(QUERIES, VECTORS, 10, metric="dot")
    half_a_step = (RANGES[1] - RANGES[0]).max() / 255 / 2
    np.testing.assert_allclose(found.scores, exact.scores, atol=half_a_step * N_EMBD**0.5)
    overlap = [
        len({*a} & {*b})
        for a, b in zip(found.indices.tolist(), exact.indices.tolist(), strict=True)
    ]
    assert min(overlap) >= 9
    np.testing.assert_array_equal(found.indices[:, 0], range(5))


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_without_ranges_codes_are_numbers_as_in_sentence_transformers(precision):
    codes = quantized(VECTORS, precision, RANGES)
    found = top_k_codes(QUERIES, codes, 10, precision=precision)
    order, scores = best((QUERIES.astype(np.float64) @ codes.T).astype(np.float32), 10)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-6)


def test_a_component_without_a_range_stands_for_its_one_value():
    vectors = VECTORS[:50].copy()
    vectors[:, 7] = 0.25
    ranges = np.stack([vectors.min(axis=0), vectors.max(axis=0)])
    query = np.zeros(N_EMBD)
    query[7] = 1
    codes = quantized(vectors, "int8", ranges)
    scores = top_k_codes(query, codes, 5, precision="int8", ranges=ranges).scores
    # codes of -128 in buckets without a width
    np.testing.assert_allclose(scores, 0.25, atol=1e-7)


@pytest.mark.parametrize("precision", ["binary", "ubinary", "int8", "uint8"])
def test_with_the_vectors_scores_are_exact(precision, tmp_path):
    VECTORS.tofile(tmp_path / "vectors")
    mapped = np.memmap(tmp_path / "vectors", np.float32, "r", shape=VECTORS.shape)
    ranges = None if precision.endswith("binary") else RANGES
    codes = quantized(VECTORS, precision, RANGES)
    options = {"precision": precision, "ranges": ranges, "vectors": mapped}
    found = top_k_codes(QUERIES, codes, 10, oversampling=300, **options)
    exact = top_k(QUERIES, VECTORS, 10, metric="dot")
    np.testing.assert_array_equal(found.indices, exact.indices)
    np.testing.assert_array_equal(found.scores, exact.scores)
    one = top_k_codes(QUERIES[2], codes, 10, oversampling=300, **options)
    np.testing.assert_array_equal(one.indices, exact.indices[2])


def test_oversampling_finds_more():
    exact = top_k(QUERIES, VECTORS, 10, metric="dot").indices
    codes = quantized(VECTORS, "ubinary")

    def recall(oversampling):
        found = top_k_codes(
            QUERIES,
            codes,
            10,
            precision="ubinary",
            vectors=VECTORS,
            oversampling=oversampling,
        ).indices
        return np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])

    assert recall(1) < recall(8) < recall(300) == 1


def test_rescore_takes_what_any_search_found():
    codes = quantized(VECTORS, "int8", RANGES)
    first = hamming_top_k(quantized(QUERIES, "ubinary"), quantized(VECTORS, "ubinary"), 200).indices
    by_vectors = rescore(QUERIES, first, VECTORS, 10)
    by_codes = rescore(QUERIES, first, codes, 10, precision="int8", ranges=RANGES)
    assert by_vectors.indices.shape == by_codes.indices.shape == (5, 10)
    np.testing.assert_array_equal(by_vectors.indices[:, 0], range(5))
    np.testing.assert_allclose(by_codes.scores[:, 0], by_vectors.scores[:, 0], atol=0.01)
    all_of_them = rescore(QUERIES[0], first[0].astype(np.uint16), VECTORS)
    np.testing.assert_array_equal(np.sort(all_of_them.indices), np.sort(first[0]))
    assert (np.diff(all_of_them.scores) <= 0).all()


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_rescore_by_bits(precision):
    first = np.arange(300).reshape(5, 60)
    found = rescore(QUERIES, first, quantized(VECTORS, precision), 7, precision=precision)
    for query, candidates, indices in zip(QUERIES, first, found.indices, strict=True):
        order, _ = best((query.astype(np.float64) @ SIGNS[candidates].T)[np.newaxis], 7)
        np.testing.assert_array_equal(indices, candidates[order[0]])


def test_rescore_ties_and_empty():
    rows = np.ones((6, N_EMBD), np.float32)
    assert rescore(rows[0], np.array([5, 2, 4]), rows, 2).indices.tolist() == [2, 4]
    assert rescore(rows[0], np.array([], dtype=int), rows).indices.shape == (0,)
    assert rescore(rows[:2], np.empty((2, 0), int), rows, 3).scores.shape == (2, 0)


def test_nothing_to_search():
    codes = quantized(VECTORS[:0], "ubinary")
    assert top_k_codes(QUERIES, codes, 3, precision="ubinary").indices.shape == (5, 0)
    codes = quantized(VECTORS[:0], "int8", RANGES)
    assert top_k_codes(QUERIES[0], codes, 3, precision="int8").indices.shape == (0,)


CODES = quantized(VECTORS, "int8", RANGES)
PACKED = quantized(VECTORS, "ubinary")


@pytest.mark.parametrize(
    ("codes", "options", "message"),
    [
        (CODES, {"precision": "int4"}, "precision is 'int4'; choose one of int8, uint8, binary"),
        (CODES[0], {"precision": "int8"}, r"codes is int8 \(44,\) with 1 axes"),
        (CODES[:, :40], {"precision": "int8"}, r"codes is int8 \(3000, 40\), queries have 44"),
        (PACKED[:, :5], {"precision": "ubinary"}, "of such vectors are 6 wide"),
        (PACKED, {"precision": "ubinary", "ranges": RANGES}, "ubinary codes have none"),
        (CODES, {"precision": "int8", "ranges": RANGES[:, :9]}, r"ranges is float32 \(2, 9\), cod"),
        (CODES, {"precision": "int8", "ranges": RANGES[:1]}, "pass two rows, the minimum and"),
        (CODES, {"precision": "int8", "ranges": RANGES[::-1]}, "no minimum over its maximum"),
        (CODES, {"precision": "int8", "ranges": RANGES + np.nan}, "all of them finite"),
        (
            CODES,
            {"precision": "int8", "vectors": VECTORS[:9]},
            r"vectors is float32 \(9, 44\), cod",
        ),
        (
            CODES,
            {"precision": "int8", "vectors": VECTORS[:, :9]},
            r"queries is .* vectors is .*9\)",
        ),
        (CODES, {"precision": "int8", "oversampling": 0}, "oversampling is 0; pass a whole"),
        (CODES, {"precision": "int8", "k": 0}, "k is 0; pass a whole"),
    ],
)
def test_what_does_not_fit_is_named(codes, options, message):
    with pytest.raises(InvalidInputError, match=message):
        top_k_codes(QUERIES, codes, **{"k": 3, **options})


@pytest.mark.parametrize(
    ("codes", "precision", "message"),
    [
        (CODES, "uint8", r"codes is int8 \(3000, 44\), uint8 codes are uint8"),
        (PACKED, "binary", r"codes is uint8 \(3000, 6\), binary codes are int8"),
        (VECTORS, "int8", r"codes is float32 \(3000, 44\), int8 codes are int8"),
    ],
)
def test_codes_of_another_dtype(codes, precision, message):
    with pytest.raises(InvalidInputTypeError, match=message):
        top_k_codes(QUERIES, codes, 3, precision=precision)


def test_queries_have_to_be_floats():
    with pytest.raises(InvalidInputTypeError, match="queries is int8"):
        top_k_codes(CODES[:2], CODES, 3, precision="int8")
    with pytest.raises(InvalidInputError, match="row 0 of queries holds NaN"):
        top_k_codes(QUERIES * np.nan, CODES, 3, precision="int8")


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (np.zeros((5, 3)), r"candidates is float64 \(5, 3\); pass integers"),
        (np.zeros((4, 3), int), r"candidates is int64 \(4, 3\), queries is float32 \(5, 44\)"),
        (np.zeros(3, int), "one row of candidates for each query"),
        (np.full((5, 3), 3000), "candidates holds 3000, rows are numbered 0 to 2999"),
        (np.full((5, 3), -1), "candidates holds -1, rows are numbered 0 to 2999"),
    ],
)
def test_candidates_that_cannot_be(candidates, message):
    with pytest.raises(InvalidInputError, match=message):
        rescore(QUERIES, candidates, VECTORS)


def test_nan_among_candidates_is_named_by_its_row():
    rows = VECTORS.copy()
    rows[77, 0] = np.nan
    with pytest.raises(InvalidInputError, match="row 77 of rows holds NaN"):
        rescore(QUERIES[0], np.array([3, 77]), rows)
    assert rescore(QUERIES[0], np.array([3, 78]), rows).indices.shape == (2,)
    with pytest.raises(InvalidInputError, match=r"queries is .*44\), rows is float32 \(3000, 9\)"):
        rescore(QUERIES[0], np.array([3]), VECTORS[:, :9])

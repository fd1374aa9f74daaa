"""Normalisation and pooling against formulas written another way, at any magnitude."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embellama.pooling import merge_windows, normalize, pool_token_rows

finite = st.floats(-(2.0**126), 2.0**126, width=32)
ordinary = st.floats(-100, 100, width=32)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 9))
P_NORMS = [1, 2, 3, 7, 64]


def llama_cpp_norm(row, embd_norm):
    """The divisor of a row. Source: `common_embd_normalize` in llama.cpp's common.cpp."""
    values = [abs(float(value)) for value in row]
    if embd_norm == -1:
        return 1.0
    if embd_norm == 0:
        return max(values) / 32760.0
    return sum(value**embd_norm for value in values) ** (1.0 / embd_norm)


@given(arrays(np.float32, shapes, elements=ordinary), st.sampled_from([-1, 0, 1, 2, 3, 6]))
def test_the_definitions_of_llama_cpp(rows, embd_norm):
    rows[np.abs(rows) < 1e-3] = 0  # whose powers llama.cpp may lose
    ours = normalize(rows, {-1: "none", 0: "max_abs", 2: "l2"}.get(embd_norm, embd_norm))
    for row, scaled in zip(rows, ours, strict=True):
        norm = llama_cpp_norm(row, embd_norm)
        expected = row.astype(np.float64) / norm if norm else row
        np.testing.assert_allclose(scaled, expected, rtol=1e-6, atol=0)


@given(arrays(np.float32, shapes, elements=finite), st.sampled_from(P_NORMS))
def test_the_p_norm_of_every_row_becomes_one(rows, p):
    scaled = normalize(rows, p).astype(np.float64)
    zero = ~rows.any(axis=1)
    lengths = np.linalg.norm(scaled, ord=p, axis=1)
    np.testing.assert_allclose(lengths[~zero], 1, rtol=1e-5)
    assert not scaled[zero].any()
    np.testing.assert_array_equal(np.sign(scaled[np.abs(scaled) > 0]), np.sign(rows[scaled != 0]))


@given(arrays(np.float32, shapes, elements=finite))
def test_the_largest_component_becomes_32760(rows):
    scaled = normalize(rows, "max_abs")
    zero = ~rows.any(axis=1)
    np.testing.assert_allclose(np.abs(scaled).max(axis=1)[~zero], 32760, rtol=1e-6)
    assert not scaled[zero].any()


@given(arrays(np.float32, shapes, elements=finite))
def test_the_norm_of_two_is_the_euclidean(rows):
    np.testing.assert_array_equal(normalize(rows, 2), normalize(rows, "l2"))


@given(
    arrays(np.float32, shapes, elements=ordinary),
    st.sampled_from(["l2", "max_abs", *P_NORMS]),
    st.integers(-90, 90),
)
def test_the_scale_of_a_row_does_not_matter(rows, normalization, exponent):
    rows[np.abs(rows) < 1e-3] = 0
    scaled = np.ldexp(rows, exponent).astype(np.float32)
    ours = normalize(scaled, normalization)
    assert np.isfinite(ours).all()
    np.testing.assert_allclose(ours, normalize(rows, normalization), rtol=1e-6)


@given(
    arrays(np.float32, shapes, elements=finite), st.sampled_from(["l2", "max_abs", "none", 1, 9])
)
def test_rows_are_scaled_each_by_itself_and_left_as_they_were(rows, normalization):
    before = rows.copy()
    together = normalize(rows, normalization)
    alone = np.concatenate([normalize(row[np.newaxis], normalization) for row in rows])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(rows, before)
    assert together.dtype == np.float32


@st.composite
def sequences(draw):
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    rows = draw(arrays(np.float32, (sum(lengths), draw(st.integers(1, 4))), elements=ordinary))
    return rows, np.cumsum([0, *lengths]).astype(np.int32)


@given(sequences(), st.sampled_from(["max", "mean", "mean_sqrt_len"]))
def test_sequences_are_pooled_as_if_alone(packed, pooling_type):
    rows, offsets = packed
    formula = {
        "max": lambda part: part.max(axis=0),
        "mean": lambda part: part.mean(axis=0),
        "mean_sqrt_len": lambda part: part.sum(axis=0) / len(part) ** 0.5,
    }[pooling_type]
    expected = [formula(part.astype(np.float64)) for part in np.split(rows, offsets[1:-1])]
    pooled = pool_token_rows(rows, offsets, pooling_type)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, rtol=1e-6, atol=1e-30)


@given(arrays(np.float32, shapes, elements=ordinary), st.data())
def test_windows_are_weighted_by_their_tokens(rows, data):
    rows[np.abs(rows) < 1e-3] = 0
    weights = data.draw(st.lists(st.integers(1, 500), min_size=len(rows), max_size=len(rows)))
    by_hand = np.average(normalize(rows).astype(np.float64), axis=0, weights=weights)
    for normalization in ("l2", "max_abs", 1):
        merged = merge_windows(rows, weights, normalization)
        np.testing.assert_allclose(merged, by_hand, rtol=1e-6, atol=1e-7)
    raw = merge_windows(rows, weights, "none")
    expected = np.average(rows.astype(np.float64), axis=0, weights=weights)
    np.testing.assert_allclose(raw, expected, rtol=1e-6, atol=1e-5)


@given(arrays(np.float32, st.tuples(st.just(1), st.integers(1, 9)), elements=ordinary))
def test_one_window_is_the_text_itself(rows):
    assume(np.abs(rows).max() > 1e-3)
    merged = normalize(merge_windows(rows, [7], "l2")[np.newaxis])
    np.testing.assert_allclose(merged, normalize(rows), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("magnitude", [1e30, 1e-30, 8e37, 1e-38, 1e-44])
@pytest.mark.parametrize("normalization", ["l2", "max_abs", 1, 3, 64])
def test_no_magnitude_overflows_or_vanishes(magnitude, normalization):
    row = np.array([[3, -4, 0]], dtype=np.float64)
    scaled = normalize((row * magnitude).astype(np.float32), normalization)
    # 3e-44 and 4e-44 are 21 and 29 times the smallest number
    tolerance = 0.05 if magnitude == 1e-44 else 1e-5
    expected = normalize(row.astype(np.float32), normalization)
    np.testing.assert_allclose(scaled, expected, rtol=tolerance)

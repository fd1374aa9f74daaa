import numpy as np
import pytest

from embellama.errors import ConfigurationError
from embellama.pooling import (
    decide_pooling,
    merge_windows,
    normalize,
    pool_token_rows,
    rows_with_bad_values,
)


@pytest.mark.parametrize(
    ("explicit", "file", "catalogue", "chosen", "source", "n_warnings"),
    [
        ("cls", "mean", "mean", "cls", "explicit", 1),
        (None, "mean", None, "mean", "file", 0),
        (None, "cls", "cls", "cls", "file", 0),
        (None, "mean", "cls", "mean", "file", 1),
        (None, None, "cls", "cls", "catalogue", 0),
        (None, "none", "cls", "cls", "catalogue", 0),
        (None, None, None, "mean", "architecture", 1),
    ],
)
def test_who_decides(explicit, file, catalogue, chosen, source, n_warnings):
    decision = decide_pooling(
        explicit=explicit, file=file, catalogue=catalogue, architecture="bert"
    )
    assert (decision.pooling_type, decision.source) == (chosen, source)
    assert len(decision.warnings) == n_warnings


def test_a_generating_architecture_pools_its_last_token():
    decision = decide_pooling(explicit=None, file=None, catalogue=None, architecture="llama")
    assert decision.pooling_type == "last"
    assert "set pooling_type" in decision.warnings[0]


def test_rows_get_length_one_and_zero_stays_zero():
    rows = np.array([[3, 4], [0, 0], [1e-30, 0]], dtype=np.float32)
    scaled = normalize(rows)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)


def test_none_leaves_rows_as_they_are():
    rows = np.array([[3, 4]], dtype=np.float32)
    assert normalize(rows, "none") is rows


def test_nan_and_infinity_are_found():
    rows = np.array([[1, 2], [np.nan, 1], [1, np.inf]], dtype=np.float32)
    assert rows_with_bad_values(rows) == [1, 2]


@pytest.mark.parametrize(
    ("normalization", "expected"),
    [
        ("l2", [0.6, -0.8, 0]),
        (2, [0.6, -0.8, 0]),
        (1, [3 / 7, -4 / 7, 0]),
        (3, [3 / 91 ** (1 / 3), -4 / 91 ** (1 / 3), 0]),
        ("max_abs", [24570, -32760, 0]),
        ("none", [3, -4, 0]),
    ],
)
def test_each_normalization_by_hand(normalization, expected):
    rows = np.array([[3, -4, 0], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(normalize(rows, normalization), [expected, [0, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("normalization", ["l2", "max_abs", 1])
def test_no_rows_are_no_rows(normalization):
    assert normalize(np.empty((0, 4), np.float32), normalization).shape == (0, 4)


@pytest.mark.parametrize(
    ("pooling_type", "expected"),
    [
        ("max", [[3, 5], [-1, -2]]),
        ("mean", [[2, 1], [-1, -2]]),
        ("mean_sqrt_len", [[4 / 2**0.5, 2 / 2**0.5], [-1, -2]]),
    ],
)
def test_token_rows_become_one_row_a_sequence(pooling_type, expected):
    rows = np.array([[1, 5], [3, -3], [-1, -2]], dtype=np.float32)
    pooled = pool_token_rows(rows, np.array([0, 2, 3], np.int32), pooling_type)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)


def test_long_sequences_are_summed_in_double_precision():
    rows = np.full((100_000, 1), 0.1, dtype=np.float32)
    offsets = np.array([0, len(rows)], np.int32)
    np.testing.assert_allclose(pool_token_rows(rows, offsets, "mean"), [[0.1]], rtol=1e-6)


@pytest.mark.parametrize("pooling_type", ["cls", "last", "rank", "none"])
def test_poolings_of_llama_cpp_are_not_made_of_token_rows(pooling_type):
    with pytest.raises(ConfigurationError, match=f"{pooling_type!r} is not made of token rows"):
        pool_token_rows(np.ones((1, 1), np.float32), np.array([0, 1], np.int32), pooling_type)


def test_nan_is_not_lost_in_pooling():
    rows = np.array([[1, 2], [np.nan, 1]], dtype=np.float32)
    for pooling_type in ("max", "mean", "mean_sqrt_len"):
        pooled = pool_token_rows(rows, np.array([0, 2], np.int32), pooling_type)
        assert rows_with_bad_values(pooled) == [0]


def test_windows_merge_by_direction_or_as_they_are():
    rows = np.array([[10, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(merge_windows(rows, [1, 3], "l2"), [0.25, 0.75])
    np.testing.assert_allclose(merge_windows(rows, [1, 3], "none"), [2.5, 0.75])

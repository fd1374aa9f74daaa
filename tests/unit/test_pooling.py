import numpy as np
import pytest

from embellama.pooling import decide_pooling, normalize, rows_with_bad_values


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

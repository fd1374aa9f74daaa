import numpy as np
import pytest

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity import hamming, hamming_matrix, hamming_top_k
from embellama.similarity.bits import _count_bits, _count_bits_by_table


def random_codes(n, n_bytes, seed=1, dtype=np.uint8):
    codes = np.random.default_rng(seed).integers(0, 256, (n, n_bytes), dtype=np.uint8)
    return codes.view(dtype)


def bit_by_bit(a, b):
    bits = [np.unpackbits(side.view(np.uint8), axis=1) for side in (a, b)]
    return (bits[0][:, np.newaxis] != bits[1]).sum(axis=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("n_bytes", [1, 7, 8, 9, 48])
def test_bit_by_bit_gives_the_same(n_bytes, dtype):
    a, b = random_codes(5, n_bytes, dtype=dtype), random_codes(40, n_bytes, seed=2, dtype=dtype)
    expected = bit_by_bit(a, b)
    matrix = hamming_matrix(a, b)
    assert matrix.dtype == np.int32
    np.testing.assert_array_equal(matrix, expected)
    assert hamming(a[3], b[7]) == expected[3, 7]
    assert type(hamming(a[3], b[7])) is int
    np.testing.assert_array_equal(hamming_matrix(a), bit_by_bit(a, a))


def test_more_codes_than_a_block():
    a, b = random_codes(1030, 2), random_codes(20_000, 2, seed=2)
    matrix = hamming_matrix(a, b)
    np.testing.assert_array_equal(matrix[-3:, -5000:], bit_by_bit(a[-3:], b[-5000:]))


@pytest.mark.parametrize("n_bytes", [2, 48])
@pytest.mark.parametrize("k", [1, 10, 900, 40_000, 50_000])
def test_top_k_is_a_stable_full_sort(n_bytes, k):
    """Two bytes allow for 17 distances only: nearly everything is a tie."""
    codes, queries = random_codes(40_000, n_bytes), random_codes(3, n_bytes, seed=2)
    indices, scores = hamming_top_k(queries, codes, k)
    assert indices.dtype == np.int64
    assert scores.dtype == np.float32
    distances = hamming_matrix(queries, codes)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_array_equal(scores, np.take_along_axis(distances, order, axis=1))


def test_one_query_gives_one_row():
    codes = random_codes(50, 6)
    found = hamming_top_k(codes[17], codes, 4)
    assert found.indices.shape == (4,)
    assert (found.indices[0], found.scores[0]) == (17, 0)
    assert hamming_top_k(codes[:2], codes[:0], 4).indices.shape == (2, 0)


def test_codes_on_disk(tmp_path):
    codes = random_codes(40_000, 48)
    codes.tofile(tmp_path / "codes")
    mapped = np.memmap(tmp_path / "codes", np.uint8, "r", shape=codes.shape)
    np.testing.assert_array_equal(
        hamming_top_k(codes[:2], mapped, 9).indices, hamming_top_k(codes[:2], codes, 9).indices
    )


def test_the_table_for_old_numpy_counts_the_same():
    words = random_codes(300, 8).view(np.uint64)[:, 0]
    by_hand = [int(word).bit_count() for word in words]
    assert _count_bits_by_table(words).tolist() == by_hand
    assert _count_bits(words).tolist() == by_hand


def test_without_bitwise_count(monkeypatch):
    codes = random_codes(20, 9)
    expected = bit_by_bit(codes, codes)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(hamming_matrix(codes), expected)


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        (
            random_codes(2, 3),
            random_codes(2, 4),
            InvalidInputError,
            r"\(2, 3\), codes is uint8 \(2",
        ),
        (
            random_codes(2, 3),
            random_codes(2, 3, dtype=np.int8),
            InvalidInputTypeError,
            r"queries is uint8 \(2, 3\), codes is int8 \(2, 3\): .* same precision",
        ),
        (np.ones((2, 3)), np.ones((2, 3)), InvalidInputTypeError, "queries is float64"),
        (np.uint8(1), random_codes(2, 1), InvalidInputError, r"queries is uint8 \(\)"),
        (random_codes(2, 3), random_codes(2, 3)[0], InvalidInputError, "codes .* with 1 axes"),
    ],
)
def test_what_does_not_fit_is_named(a, b, error, message):
    with pytest.raises(error, match=message):
        hamming_top_k(a, b, 1)


def test_axes_of_the_other_forms():
    codes = random_codes(2, 3)
    with pytest.raises(InvalidInputError, match="a is uint8 .* with 2 axes; pass one vector"):
        hamming(codes, codes[0])
    with pytest.raises(InvalidInputError, match="b is uint8 .* with 1 axes; pass rows"):
        hamming_matrix(codes, codes[0])
    with pytest.raises(InvalidInputError, match="k is 0"):
        hamming_top_k(codes, codes, 0)

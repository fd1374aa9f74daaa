import numpy as np
import pytest

from embellama.cache.record import DamagedFileError, decode, encode
from embellama.types import CachedVector
from tests.unit.cache.vectors import is_right, key_of, value_of

KEY = key_of(7)
RECORD = encode(KEY, value_of(7, 5))


def test_what_comes_back_is_what_went_in():
    value = decode(KEY, RECORD)
    assert is_right(value, 7)
    assert value.vector.dtype == np.float32
    assert not value.vector.flags.writeable


def test_special_numbers_keep_their_bits():
    row = np.array([0.0, -0.0, 1e-45, np.inf, np.nan], dtype=np.float32)
    back = decode(KEY, encode(KEY, CachedVector(row, 1))).vector
    assert back.tobytes() == row.tobytes()


@pytest.mark.parametrize(
    "record", [b"", RECORD[:20], RECORD[:-4], RECORD + b"\0" * 4, "text", None]
)
def test_other_bytes_are_refused(record):
    with pytest.raises(DamagedFileError):
        decode(KEY, record)


def test_any_single_bit_that_flips_is_noticed():
    for bit in range(len(RECORD) * 8):
        damaged = bytearray(RECORD)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedFileError):
            decode(KEY, bytes(damaged))


def test_a_record_under_another_key_is_refused():
    with pytest.raises(DamagedFileError, match="checksum"):
        decode(key_of(8), RECORD)


def test_counts_beyond_the_format_are_cut_and_the_vector_kept():
    value = decode(KEY, encode(KEY, CachedVector(value_of(1, 3).vector, 2**40)))
    assert value.n_tokens == 2**32 - 1

"""A cached vector as bytes: a header with a checksum, then the float32 row.

::

    offset 0    4 bytes   b"EMV" and the format's version
           4    8         BLAKE2b of the key and of all that follows
          12    4 × 4     n_embd, n_tokens, n_dropped, n_windows: little-endian uint32
          28    4 × n_embd  float32, little-endian

The checksum covers the key: a row that damage has put under another key is found out too.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final

import numpy as np

from embellama.cache.key import KEY_BYTES
from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.types import CachedVector, FloatArray

MAX_COMPONENTS: Final = 1 << 21
"""No vector comes near it."""

MAX_RECORD_BYTES: Final = 1 << 24
"""No record comes near it: a longer one is a damaged length."""

_MAGIC: Final = b"EMV\x01"
_HEADER: Final = struct.Struct("<4s8s4I")
_COUNTS: Final = struct.Struct("<4I")
_CHECKSUM_BYTES: Final = 8
_CHECKED_FROM: Final = len(_MAGIC) + _CHECKSUM_BYTES
_MAX_COUNT: Final = 2**32 - 1


class DamagedFileError(Exception):
    """Bytes of a cache file are not what was written; never leaves the package's cache."""


def check_item(key: bytes, value: CachedVector, *, position: int) -> None:
    """Check what is to be kept.

    Args:
        key: `KEY_BYTES` of `cache_key`.
        value: A `CachedVector` with finite float32 (n_embd,).
        position: Where in the call it is, for errors.

    Raises:
        InvalidInputTypeError: The key, the value, its vector or a count has another type.
        InvalidInputError: The vector has NaN or infinity, nothing, or too much in it.
    """
    wrong = _wrong_type(key, value)
    if wrong is not None:
        raise InvalidInputTypeError(f"item {position}: {wrong}", indices=[position])
    n_embd = len(value.vector)
    if not 1 <= n_embd <= MAX_COMPONENTS:
        raise InvalidInputError(
            f"item {position}: a vector of {n_embd} components; 1 to {MAX_COMPONENTS} can be kept",
            indices=[position],
        )
    if not is_finite(value.vector):
        component = int(np.argmin(np.isfinite(value.vector)))
        raise InvalidInputError(
            f"item {position}: component {component} of the vector is {value.vector[component]}; "
            "keep finite vectors only, a later call would get this one for its text",
            indices=[position],
        )


def _wrong_type(key: object, value: object) -> str | None:
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        return f"a key is {KEY_BYTES} bytes that cache_key gives, not {key!r:.60}"
    if not isinstance(value, CachedVector):
        return f"a value is a CachedVector, not {type(value).__name__}"
    vector = value.vector
    if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.ndim != 1:
        kind = getattr(vector, "dtype", type(vector).__name__)
        return (
            f"a cached vector is float32 (n_embd,), not {kind} {np.shape(vector)}; "
            "other precisions are made from it after the cache"
        )
    for name in ("n_tokens", "n_dropped", "n_windows"):
        count = getattr(value, name)
        if not isinstance(count, int | np.integer) or count < 0:
            return f"{name} is a number from 0, not {count!r:.60}"
    return None


def is_finite(vector: FloatArray) -> bool:
    """Tell whether a vector is free of NaN and infinity."""
    return bool(np.isfinite(vector).all())


def encode(key: bytes, value: CachedVector) -> bytes:
    """Turn a vector into its record.

    Args:
        key: What it will be found by.
        value: A vector of float32 (n_embd,).
    """
    body = (
        _COUNTS.pack(
            len(value.vector),
            # a count for display is not worth losing a vector over
            min(value.n_tokens, _MAX_COUNT),
            min(value.n_dropped, _MAX_COUNT),
            min(value.n_windows, _MAX_COUNT),
        )
        + value.vector.astype("<f4", copy=False).tobytes()
    )
    return _MAGIC + _checksum(key, body) + body


def decode(key: bytes, record: object) -> CachedVector:
    """Turn a record back into its vector, which is read-only.

    Raises:
        DamagedFileError: It is not the record that was written under this key.
    """
    if not isinstance(record, bytes) or len(record) < _HEADER.size:
        raise DamagedFileError("a record without its header")
    magic, checksum, n_embd, n_tokens, n_dropped, n_windows = _HEADER.unpack_from(record)
    if magic != _MAGIC or checksum != _checksum(key, memoryview(record)[_CHECKED_FROM:]):
        raise DamagedFileError("a record that does not match its checksum")
    vector = np.frombuffer(record, dtype="<f4", offset=_HEADER.size).astype(np.float32, copy=False)
    if len(vector) != n_embd:
        raise DamagedFileError(f"a record of {len(vector)} components that says {n_embd}")
    return CachedVector(vector, n_tokens, n_dropped, n_windows)


def _checksum(key: bytes, body: bytes | memoryview) -> bytes:
    digest = blake2b(key, digest_size=_CHECKSUM_BYTES)
    digest.update(body)
    return digest.digest()

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

from embellama.types import CachedVector

MAX_RECORD_BYTES: Final = 1 << 24
"""No vector comes near it: four million components. A longer one is a damaged length."""

_MAGIC: Final = b"EMV\x01"
_HEADER: Final = struct.Struct("<4s8s4I")
_COUNTS: Final = struct.Struct("<4I")
_CHECKSUM_BYTES: Final = 8
_CHECKED_FROM: Final = len(_MAGIC) + _CHECKSUM_BYTES
_MAX_COUNT: Final = 2**32 - 1


class DamagedFileError(Exception):
    """Bytes of a cache file are not what was written; never leaves the package's cache."""


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

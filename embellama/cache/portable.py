"""Any number of cached vectors in one file, for another machine or the next start.

::

    16 bytes          b"embellama-cache" and the format's version
    for each vector   32 bytes key, float64 time it was stored, uint32 length, the record
    32 bytes          BLAKE2b of all before

Numbers are little-endian; a record is that of `record.py`.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from embellama.cache.key import KEY_BYTES
from embellama.cache.record import MAX_RECORD_BYTES, DamagedFileError, decode, encode, is_finite
from embellama.cache.recovery import identity_of, set_aside
from embellama.cache.stats import Entry, Tier
from embellama.errors import ConfigurationError
from embellama.files import replacing
from embellama.logs import log

BATCH: Final = 512
"""Vectors that a cache is given at once."""

_MAGIC: Final = b"embellama-cache\x01"
_HEAD: Final = struct.Struct(f"<{KEY_BYTES}sdI")
_DIGEST_BYTES: Final = 32
_BLOCK: Final = 1 << 20


def write_file(path: Path, entries: Iterable[Entry]) -> int:
    """Write entries to a file, which appears complete or not at all.

    Returns:
        How many there were.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(path) as partial, partial.open("wb") as file:
        digest = blake2b(digest_size=_DIGEST_BYTES)
        for part in _parts(entries):
            digest.update(part)
            file.write(part)
            count += 1
        file.write(digest.digest())
    return count - 1


def _parts(entries: Iterable[Entry]) -> Iterator[bytes]:
    yield _MAGIC
    for key, value, stored_at in entries:
        record = encode(key, value)
        yield _HEAD.pack(key, stored_at, len(record)) + record


def read_file(file: BinaryIO) -> Iterator[Entry]:
    """Check a whole file, and then yield its entries.

    Raises:
        DamagedFileError: It is no file of ours, of another version, or not whole.
        OSError: It cannot be read.
    """
    end = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
    if file.read(len(_MAGIC)) != _MAGIC:
        raise DamagedFileError("it does not begin like a file of this version of the cache")
    _check_digest(file, end)
    file.seek(len(_MAGIC))
    while file.tell() < end:
        key, stored_at, length = _HEAD.unpack(_exactly(file, _HEAD.size))
        if length > MAX_RECORD_BYTES:
            raise DamagedFileError(f"a record of {length} bytes")
        yield Entry(key, decode(key, _exactly(file, length)), stored_at)


def _check_digest(file: BinaryIO, end: int) -> None:
    file.seek(0)
    digest = blake2b(digest_size=_DIGEST_BYTES)
    left = end
    while left > 0 and (block := file.read(min(left, _BLOCK))):
        digest.update(block)
        left -= len(block)
    if left != 0 or file.read(_DIGEST_BYTES) != digest.digest():
        raise DamagedFileError("its content does not match its checksum")


def _exactly(file: BinaryIO, n_bytes: int) -> bytes:
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise DamagedFileError("it ends in the middle of a record")
    return data


def save(tier: Tier, path: Path) -> int:
    """Write what a tier keeps to a file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        count = write_file(path, tier.entries())
    except (OSError, ValueError) as exc:
        raise _unusable(path, "written", exc) from exc
    log.info("embellama.cache.saved", path=str(path), n_entries=count)
    return count


def restore(tier: Tier, path: Path) -> int:
    """Put what a file has into a tier.

    Raises:
        DamagedFileError: It is not what was written; nothing of it is put.
        ConfigurationError: It cannot be read.
    """
    count = 0
    try:
        with path.open("rb") as file:
            # none is put any more, but a file may have them from before
            entries = (entry for entry in read_file(file) if is_finite(entry.value.vector))
            while batch := list(islice(entries, BATCH)):
                tier.restore(batch)
                count += len(batch)
    except (OSError, ValueError) as exc:
        raise _unusable(path, "read", exc) from exc
    log.info("embellama.cache.loaded", path=str(path), n_entries=count)
    return count


def restore_or_set_aside(tier: Tier, path: Path) -> int:
    """Put what a file has into a tier; a damaged file is set aside and a missing one is empty.

    Raises:
        ConfigurationError: It cannot be read, or not be set aside.
    """
    identity = identity_of(path)
    if identity is None and not path.is_symlink():
        return 0
    try:
        return restore(tier, path)
    except DamagedFileError as exc:
        if identity_of(path) == identity:  # else another process has just saved a sound one
            try:
                set_aside(path, str(exc))
            except OSError as refusal:
                raise _unusable(path, "set aside", refusal) from refusal
        return 0


def require_writable(path: Path) -> None:
    """Check that a file can be written before there is anything to lose.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
    except (OSError, ValueError) as exc:
        raise _unusable(path, "written", exc) from exc


def _unusable(path: Path, verb: str, exc: Exception) -> ConfigurationError:
    reason = getattr(exc, "strerror", None) or exc
    return ConfigurationError(
        f"the file of cached vectors {str(path)!r} cannot be {verb} ({reason}): name a file in a "
        "folder that is there, with the rights and the room for it"
    )

"""Files that appear complete or not at all, and the digest of what is in one."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path next to the target, which takes its place when the block ends well.

    A reader sees the old file or the new, never a part. Whatever ends the block otherwise, an
    interrupt too, removes the file. Only a killed process leaves one behind,
    ``.<name>.<random>.partial``, which nothing ever reads.

    Args:
        target: The file to make or replace, in a folder that is there.

    Raises:
        OSError: It cannot be written.
    """
    path = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        yield path
        _sync(path)
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)


def read_small(path: Path, most: int) -> bytes:
    """Read a file of ours that is small unless something else wrote it.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        ValueError: It has more bytes.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"more than {most} bytes")
    return data


def _sync(path: Path) -> None:
    """Wait until the bytes are on the disk: a crash must not leave a file of zeros."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

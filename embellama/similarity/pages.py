"""Pages of mapped files, given back after they were read."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np

from embellama.similarity.arrays import AnyArray


def let_go(rows: AnyArray) -> None:
    """Take the pages behind rows of a ``numpy.memmap`` out of this process's memory.

    They count as the process's own until the system needs them, so that reading a file once looks
    like holding all of it. Nothing is lost: they stay in the system's cache of files. Rows that are
    not of a mapped file, not contiguous, or of a private copy-on-write mapping, whose changes exist
    nowhere else, are left alone, as is everything on a system without such advice.
    """
    mapping = _shared_mapping(rows)
    if mapping is None or not rows.flags.c_contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return
    address = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
    first = rows.ctypes.data - address
    start = first - first % mmap.PAGESIZE
    # refused for pages that someone has locked into memory: it was only advice
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_DONTNEED, start, first + rows.nbytes - start)


def _shared_mapping(array: AnyArray) -> mmap.mmap | None:
    mode: str | None = None
    base: object = array
    while isinstance(base, np.ndarray):
        mode = base.mode if isinstance(base, np.memmap) else mode
        base = base.base
    return base if mode in ("r", "r+", "w+") and isinstance(base, mmap.mmap) else None

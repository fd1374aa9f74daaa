"""Freed native memory that really goes back to the operating system, on glibc.

A thread's allocations come from one of many arenas. When a large block is freed, glibc raises the
size from which blocks are mapped on their own, up to 32 MiB, and from then on a context's buffers
grow the arena of whichever worker made them; a free arena is kept. Sixteen threads that load and
unload a 45 MB model held 300 MB of free memory that way. With a fixed threshold every large buffer
is mapped, and unmapped when it is freed.

Source: M_MMAP_THRESHOLD in mallopt(3).
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_MMAP_THRESHOLD = -3
_THRESHOLD_BYTES = 1 << 20
"""Above the arrays of a window of texts, below the buffers of a context."""

_USER_CHOICES = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def _glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


def map_large_blocks() -> None:
    """Map every block over 1 MiB on its own, unless the user has told glibc otherwise."""
    mallopt = _glibc("mallopt")
    if mallopt is not None and not any(name in os.environ for name in _USER_CHOICES):
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def give_memory_back() -> None:
    """Return the free pages that arenas hold."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)

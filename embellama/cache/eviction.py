"""Which vectors leave a cache file that is full: those of the oldest generations.

A generation is the number of the write that put or last touched an entry. A read writes nothing:
it notes keys of old generations, and the process's next write touches them. So the order is that
of the last use, give or take an eighth of the cache.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from embellama.cache.schema import checked_number

MAX_NOTED: Final = 16_384
"""Keys of which a use is remembered until the next write; of more, the first are forgotten."""

MAX_EVICTED: Final = 1024
"""Entries that make room for one portion at most: a write stays short when a limit was lowered."""

PORTION_BYTES: Final = 64 << 10
"""Records written between two looks at the file's size."""

_MAX_FREED_PAGES: Final = 512

_STEP: Final = 64
_RECENT: Final = 8
"""The newest eighth of the generations is recent enough not to be touched again."""

_SPARE: Final = 32
"""A thirty-second of the limit is kept free, so that not every write has to evict."""


class RecentUse:
    """What a process read since it last wrote. Used by one thread at a time.

    Args:
        enabled: Whether anything is ever evicted.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._noted: dict[bytes, None] = {}
        self._recent_from = 0

    @property
    def pending(self) -> bool:
        """Whether a use waits to be written down."""
        return bool(self._noted)

    def note(self, used: Iterable[tuple[bytes, int]]) -> None:
        """Remember which keys were used, where their generations are not recent."""
        if not self._enabled:
            return
        for key, generation in used:
            if generation < self._recent_from:
                self._noted.pop(key, None)
                self._noted[key] = None
        while len(self._noted) > MAX_NOTED:
            del self._noted[next(iter(self._noted))]

    def look(self, connection: sqlite3.Connection) -> int:
        """Return the newest generation, and learn from when on one is recent."""
        oldest, newest = (
            checked_number(number or 0)
            for number in connection.execute(
                "SELECT (SELECT min(generation) FROM entries),"
                " (SELECT max(generation) FROM entries)"
            ).fetchone()
        )
        self._recent_from = newest - (newest - oldest) // _RECENT
        return newest

    def write(self, connection: sqlite3.Connection) -> int:
        """Touch the noted entries, inside a transaction, and return the newest generation."""
        newest = self.look(connection)
        noted, self._noted = self._noted, {}
        connection.executemany(
            "UPDATE entries SET generation = ? WHERE key = ?", [(newest, key) for key in noted]
        )
        return newest


def make_room(connection: sqlite3.Connection, max_bytes: int) -> int:
    """Drop the oldest entries of a file that has no room for another portion.

    Returns:
        How many were dropped, at most `MAX_EVICTED`.
    """
    spare = max(max_bytes // _SPARE, 2 * PORTION_BYTES)
    page_bytes, used_bytes, file_bytes = _sizes(connection)
    n_evicted = 0
    if used_bytes > max_bytes - spare:
        while used_bytes > max_bytes - 2 * spare and n_evicted < MAX_EVICTED:
            n_dropped = _drop_oldest(connection)
            if n_dropped == 0:
                break
            n_evicted += n_dropped
            _, used_bytes, _ = _sizes(connection)
    if file_bytes > max_bytes:  # the limit was lowered: the file shrinks a few pages at a time
        n_pages = min((file_bytes - max_bytes) // page_bytes + 1, _MAX_FREED_PAGES)
        for _ in range(n_pages):  # Python runs one step of it, and a step is a page
            connection.execute("PRAGMA incremental_vacuum")
    return n_evicted


def _drop_oldest(connection: sqlite3.Connection) -> int:
    oldest = connection.execute(
        "SELECT key, id FROM entries ORDER BY generation LIMIT ?", (_STEP,)
    ).fetchall()
    connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key, _ in oldest])
    connection.executemany("DELETE FROM vectors WHERE id = ?", [(number,) for _, number in oldest])
    return len(oldest)


def _sizes(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return the bytes of a page, of the pages in use, and of all pages."""
    page_bytes, n_pages, n_free = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_size", "page_count", "freelist_count")
    )
    return page_bytes, (n_pages - n_free) * page_bytes, n_pages * page_bytes

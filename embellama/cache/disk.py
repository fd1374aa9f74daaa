"""Vectors in a SQLite file that any number of processes share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from embellama.cache.database import Database
from embellama.cache.eviction import PORTION_BYTES, RecentUse, make_room
from embellama.cache.forking import ForkLock
from embellama.cache.record import DamagedFileError, decode, encode, is_finite
from embellama.cache.schema import checked_number
from embellama.cache.stats import CacheStats, Entry
from embellama.types import CachedVector

CHUNK: Final = 512
"""Keys in one statement and one transaction; every SQLite takes 999 parameters."""

BUSY_TIMEOUT_S: Final = 5.0


class DiskCache:
    """Vectors in a file. Safe to use from any thread and process, and after a fork.

    Args:
        path: The file, on a local disk.
        max_bytes: About how large it may get; None: no limit. The write-ahead log beside it takes
            some megabytes more.
        busy_timeout_s: How long to wait for other processes that write, before a call goes on
            without the cache.

    Raises:
        ConfigurationError: No cache file can be made or used there.
    """

    def __init__(
        self, path: Path, *, max_bytes: int | None, busy_timeout_s: float = BUSY_TIMEOUT_S
    ) -> None:
        self._database = Database(path, busy_timeout_s=busy_timeout_s)
        self._max_bytes = max_bytes
        self._use = RecentUse(enabled=max_bytes is not None)
        self._database.read(self._use.look)
        self._counts = ForkLock()
        self._hits = self._misses = self._evictions = 0

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def n_failures(self) -> int:
        """Reads and writes given up."""
        return self._database.n_failures

    def get_many(self, keys: Sequence[bytes]) -> list[CachedVector | None]:
        """Return what is there, in the order of the keys; vectors are read-only."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, CachedVector] = {}
        for start in range(0, len(wanted), CHUNK):
            found |= self._get_chunk(wanted[start : start + CHUNK])
        values = [found.get(key) for key in keys]
        n_hits = sum(value is not None for value in values)
        with self._counts:
            self._hits += n_hits
            self._misses += len(values) - n_hits
        return values

    def put_many(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Keep vectors, and drop the least recently used ones where there is no room."""
        records = [(key, encode(key, value)) for key, value in dict(items).items()]
        for start in range(0, len(records), CHUNK):
            self._put_chunk(records[start : start + CHUNK])

    def restore(self, entries: Sequence[Entry]) -> None:
        """Put entries; their age does not matter here."""
        self.put_many([(entry.key, entry.value) for entry in entries])

    def entries(self) -> Iterator[Entry]:
        """Yield what is there, a chunk at a time, so that no reader holds up the writers.

        Raises:
            OSError: Not everything could be read.
        """
        database, last = self._database, b""
        troubles = database.n_damaged, database.n_failures
        while rows := database.read(partial(_page, last)):
            yield from (Entry(key, value, 0.0) for key, value in rows)
            last = rows[-1][0]
        if troubles != (database.n_damaged, database.n_failures):
            raise OSError("the cache could not be read to its end, a log event says why")

    def clear(self) -> None:
        """Drop everything, for all processes, and give the room back.

        Raises:
            ConfigurationError: The file can neither be written nor deleted, or the cache is closed.
        """
        if self._database.write(_delete_all) is None:
            self._database.remove()  # a full disk has no room for the log of a deletion
        self._database.shrink()

    def stats(self) -> CacheStats:
        """Count; takes about 30 ms for a million entries."""
        n_entries = self._database.read(_count)
        return CacheStats(
            hits=self._hits,
            misses=self._misses,
            n_entries=n_entries or 0,
            size_bytes=sum(map(_size_of, (self.path, Path(f"{self.path}-wal")))),
            evictions=self._evictions,
            corrupt=self._database.n_damaged,
            failures=self.n_failures,
        )

    def close(self) -> None:
        """Write down what was used, and let go of the file."""
        if self._use.pending:
            self._database.write(self._use.write)
        self._database.close()

    def _get_chunk(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        def work(connection: sqlite3.Connection) -> dict[bytes, CachedVector]:
            rows = _select(connection, keys)
            self._use.note((key, generation) for key, generation, _ in rows)
            return {key: value for key, _, value in rows}

        return self._database.read(work) or {}

    def _put_chunk(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        def work(connection: sqlite3.Connection) -> int:
            generation = self._use.write(connection) + 1
            evicted = 0
            for portion in _portions(records):
                _insert(connection, portion, generation)
                if self._max_bytes is not None:
                    evicted += make_room(connection, self._max_bytes)
            return evicted

        n_evicted = self._database.write(work) or 0
        with self._counts:
            self._evictions += n_evicted


def _select(
    connection: sqlite3.Connection, keys: Sequence[bytes]
) -> list[tuple[bytes, int, CachedVector]]:
    rows = connection.execute(
        "SELECT key, generation, record FROM entries JOIN vectors USING (id) "
        f"WHERE key IN ({_marks(keys)})",
        keys,
    ).fetchall()
    found = [(key, checked_number(number), decode(key, record)) for key, number, record in rows]
    # none is put any more, but a file may have them from before
    return [row for row in found if is_finite(row[2].vector)]


def _insert(
    connection: sqlite3.Connection, records: Sequence[tuple[bytes, bytes]], generation: int
) -> None:
    keys = [key for key, _ in records]
    ids = dict(
        connection.execute(f"SELECT key, id FROM entries WHERE key IN ({_marks(keys)})", keys)
    )
    newest = checked_number(
        connection.execute("SELECT ifnull(max(id), 0) FROM vectors").fetchone()[0]
    )
    fresh = (key for key in keys if key not in ids)
    ids |= {key: number for number, key in enumerate(list(fresh), start=newest + 1)}
    numbers = [checked_number(ids[key]) for key in keys]
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
        [(key, number, generation) for key, number in zip(keys, numbers, strict=True)],
    )
    connection.executemany(
        "INSERT OR REPLACE INTO vectors VALUES (?, ?)",
        [(number, record) for number, (_, record) in zip(numbers, records, strict=True)],
    )


def _page(last: bytes, connection: sqlite3.Connection) -> list[tuple[bytes, CachedVector]]:
    rows = connection.execute(
        "SELECT key, record FROM entries JOIN vectors USING (id) WHERE key > ? "
        "ORDER BY key LIMIT ?",
        (last, CHUNK),
    ).fetchall()
    if rows and not isinstance(rows[-1][0], bytes):
        raise DamagedFileError("a key that is no bytes")
    return [(key, decode(key, record)) for key, record in rows]


def _delete_all(connection: sqlite3.Connection) -> bool:
    connection.execute("DELETE FROM entries")
    connection.execute("DELETE FROM vectors")
    return True


def _count(connection: sqlite3.Connection) -> int:
    number: int = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    return number


def _marks(keys: Sequence[bytes]) -> str:
    return ",".join("?" * len(keys))


def _portions(records: Sequence[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    portion: list[tuple[bytes, bytes]] = []
    size = 0
    for item in records:
        portion.append(item)
        size += len(item[1])
        if size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # not there: nothing was written, or it was set aside just now
        return 0

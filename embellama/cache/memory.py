"""Vectors in memory: least recently used out first, within bytes, entries and age."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from operator import itemgetter
from typing import Final

import numpy as np

from embellama.cache.forking import ForkLock
from embellama.cache.stats import CacheStats, Entry
from embellama.types import CachedVector

ENTRY_OVERHEAD_BYTES: Final = 512
"""What an entry takes beside its components: key, array, tuple, places in dictionaries.

Source: tests/unit/cache/test_memory.py, which measures it.
"""


class MemoryCache:
    """Vectors of this process. Safe to use from any thread.

    Args:
        max_bytes: Most bytes, counted with `ENTRY_OVERHEAD_BYTES` an entry; None: no limit.
        max_entries: Most entries; None: no limit.
        ttl_s: Seconds after which a vector is dropped, counted from when it was put, also across
            a save and a load; None: never.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        *,
        max_bytes: int | None = None,
        max_entries: int | None = None,
        ttl_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._ttl_s, self._clock = ttl_s, clock
        self._lock = ForkLock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._by_age: OrderedDict[bytes, float] = OrderedDict()
        self._size_bytes = 0
        self._closed = False
        self._hits = self._misses = self._evictions = self._expired = 0
        self.n_changes = 0
        """Grows with every put and clear; says whether a save is worth its while."""

    def get_many(self, keys: Sequence[bytes]) -> list[CachedVector | None]:
        """Return what is there, in the order of the keys; vectors are shared and read-only."""
        with self._lock:
            self._drop_expired()
            found = [self._get(key) for key in keys]
            n_hits = sum(value is not None for value in found)
            self._hits += n_hits
            self._misses += len(found) - n_hits
        return found

    def put_many(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Keep copies of vectors. One that alone is over the budget is not kept."""
        now = self._clock()
        self.restore([Entry(key, value, now) for key, value in items])

    def restore(self, entries: Sequence[Entry]) -> None:
        """Put entries as old as they say they are; those of unknown age count from now."""
        now = self._clock()
        owned = [
            Entry(bytes(key), _owned(value), min(stored_at, now) if stored_at > 0 else now)
            for key, value, stored_at in entries
        ]
        with self._lock:
            if self._closed:
                return
            for entry in owned:
                self._put(entry)
            self._sort_by_age(owned)
            self._drop_expired()
            self._drop_excess()
            self.n_changes += 1

    def entries(self) -> Iterator[Entry]:
        """Yield what is there now, the least recently used first."""
        with self._lock:
            self._drop_expired()
            kept = list(self._entries.values())
        yield from kept

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._by_age.clear()
            self._size_bytes = 0
            self.n_changes += 1

    def stats(self) -> CacheStats:
        """Count."""
        with self._lock:
            self._drop_expired()
            return CacheStats(
                hits=self._hits,
                misses=self._misses,
                n_entries=len(self._entries),
                size_bytes=self._size_bytes,
                evictions=self._evictions,
                expired=self._expired,
            )

    def close(self) -> None:
        """Drop everything and keep nothing more."""
        with self._lock:
            self._closed = True
            self.clear()

    def _get(self, key: bytes) -> CachedVector | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def _put(self, entry: Entry) -> None:
        self._remove(entry.key)
        self._entries[entry.key] = entry
        if self._ttl_s is not None:
            self._by_age[entry.key] = entry.stored_at
        self._size_bytes += _size_of(entry)

    def _remove(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._by_age.pop(key, None)
            self._size_bytes -= _size_of(entry)

    def _sort_by_age(self, added: Sequence[Entry]) -> None:
        """Restore the order of age after entries that may be older than those before them."""
        ages = list(islice(reversed(self._by_age.values()), len(added) + 1))
        if any(newer < older for newer, older in pairwise(ages)):
            self._by_age = OrderedDict(sorted(self._by_age.items(), key=itemgetter(1)))

    def _drop_expired(self) -> None:
        if self._ttl_s is None:
            return
        limit = self._clock() - self._ttl_s
        while self._by_age:
            key, stored_at = next(iter(self._by_age.items()))
            if stored_at > limit:
                return
            self._remove(key)
            self._expired += 1

    def _drop_excess(self) -> None:
        while self._entries and (
            (self._max_bytes is not None and self._size_bytes > self._max_bytes)
            or (self._max_entries is not None and len(self._entries) > self._max_entries)
        ):
            self._remove(next(iter(self._entries)))
            self._evictions += 1


def _owned(value: CachedVector) -> CachedVector:
    """Copy a vector: the caller's may change, or be a row of a large array that it would keep."""
    vector = np.array(value.vector, dtype=np.float32)
    vector.setflags(write=False)
    return CachedVector(vector, value.n_tokens, value.n_dropped, value.n_windows)


def _size_of(entry: Entry) -> int:
    return entry.value.vector.nbytes + ENTRY_OVERHEAD_BYTES

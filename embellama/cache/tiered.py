"""Memory in front of a disk: what is used often is not read twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embellama.cache.disk import DiskCache
from embellama.cache.memory import MemoryCache
from embellama.cache.stats import CacheStats, Entry
from embellama.types import CachedVector


class TieredCache:
    """A memory and a file. Safe to use from any thread and, for the file, process."""

    def __init__(self, memory: MemoryCache, disk: DiskCache) -> None:
        self._memory, self._disk = memory, disk

    def get_many(self, keys: Sequence[bytes]) -> list[CachedVector | None]:
        """Return what is there, in the order of the keys; what came from disk stays in memory."""
        found = self._memory.get_many(keys)
        absent = [index for index, value in enumerate(found) if value is None]
        if not absent:
            return found
        read: list[tuple[bytes, CachedVector]] = []
        from_disk = self._disk.get_many([keys[index] for index in absent])
        for index, value in zip(absent, from_disk, strict=True):
            if value is not None:
                found[index] = value
                read.append((keys[index], value))
        if read:
            self._memory.put_many(read)
        return found

    def put_many(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Keep vectors in both."""
        self._memory.put_many(items)
        self._disk.put_many(items)

    def restore(self, entries: Sequence[Entry]) -> None:
        """Put entries on disk, from where they come when they are used."""
        self._disk.restore(entries)

    def entries(self) -> Iterator[Entry]:
        """Yield what is on disk."""
        return self._disk.entries()

    def clear(self) -> None:
        """Drop everything; other processes keep what they have in memory."""
        self._memory.clear()
        self._disk.clear()

    def stats(self) -> CacheStats:
        """Count: a miss is what neither has, and what the disk dropped is evicted."""
        memory, disk = self._memory.stats(), self._disk.stats()
        return CacheStats(
            hits=memory.hits + disk.hits,
            misses=disk.misses,
            n_entries=max(memory.n_entries, disk.n_entries),
            size_bytes=memory.size_bytes + disk.size_bytes,
            evictions=disk.evictions,
            corrupt=disk.corrupt,
            failures=disk.failures,
        )

    def close(self) -> None:
        """Let go of both."""
        self._memory.close()
        self._disk.close()

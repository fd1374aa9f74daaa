"""What a cache counts, and what each of its tiers can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from embellama.types import CachedVector, VectorCache


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was made in this process, and its size now.

    Attributes:
        hits: Keys that were there.
        misses: Keys that were not.
        n_entries: Vectors kept now, those that other processes wrote too.
        size_bytes: Bytes they take, in memory and on disk together.
        evictions: Vectors this process dropped for want of room.
        expired: Vectors dropped because they were older than the time to live.
        corrupt: Damaged files found and set aside.
        failures: Reads and writes given up, because a disk was full, locked or gone.
    """

    hits: int = 0
    misses: int = 0
    n_entries: int = 0
    size_bytes: int = 0
    evictions: int = 0
    expired: int = 0
    corrupt: int = 0
    failures: int = 0

    @property
    def hit_rate(self) -> float:
        """Share of the keys asked for that were there, 0 to 1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Entry(NamedTuple):
    """A cached vector on its way from one cache to another.

    Attributes:
        key: What it is found by.
        value: The vector and what is known of it.
        stored_at: When it was put, in seconds since 1970; 0 where that is not known.
    """

    key: bytes
    value: CachedVector
    stored_at: float


class Tier(VectorCache, Protocol):
    """A place that keeps vectors."""

    def entries(self) -> Iterator[Entry]:
        """Yield what is kept, the least recently used first where that is known."""
        ...

    def restore(self, entries: Sequence[Entry]) -> None:
        """Put entries that another cache gave, with their age."""
        ...

    def clear(self) -> None:
        """Drop everything."""
        ...

    def stats(self) -> CacheStats:
        """Count."""
        ...

    def close(self) -> None:
        """Let go of files. From then on nothing is found and nothing kept."""
        ...

"""`EmbeddingCache`: what an application makes and gives to its engines."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias

from embellama.cache import portable
from embellama.cache.autosave import AutoSave
from embellama.cache.disk import DiskCache
from embellama.cache.flight import Flights
from embellama.cache.memory import MemoryCache
from embellama.cache.record import DamagedFileError, check_item
from embellama.cache.stats import CacheStats, Tier
from embellama.cache.tiered import TieredCache
from embellama.errors import ConfigurationError, EmbellamaError, InvalidInputTypeError
from embellama.types import (
    CachedVector,
    IntArray,
    Kind,
    Normalization,
    Overflow,
    TruncateSide,
    VectorCache,
)

if TYPE_CHECKING:
    from embellama.results import EmbeddingResult

Input: TypeAlias = str | Sequence[int] | IntArray
"""A text, or the token ids of one."""

DEFAULT_MEMORY_BYTES: Final = 256 << 20
"""About 125,000 vectors of 384 components."""

DEFAULT_DISK_BYTES: Final = 4 << 30
"""About 1.9 million vectors of 384 components."""

MIN_DISK_BYTES: Final = 1 << 20
AUTOSAVE_INTERVAL_S: Final = 300.0

_WARM_TEXTS: Final = 4096


class CachingEngine(Protocol):
    """What fills a cache: an engine that was made with it."""

    @property
    def cache(self) -> VectorCache | None:
        """Where it keeps vectors."""
        ...

    def embed_detailed(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        kind: Kind | None,
        prompt: str | None,
        prompt_name: str | None,
        overflow: Overflow,
        truncate_side: TruncateSide,
        max_tokens: int | None,
        window_overlap: int | None,
        normalization: Normalization | None,
    ) -> EmbeddingResult:
        """Embed texts through the cache, and say which were there."""
        ...


class EmbeddingCache:
    """Vectors that were computed before, for one or several engines.

    Make one with `in_memory`, `on_disk` or `tiered`, and close it, or use it as a context manager.
    Safe to use from any thread; a file is shared by any number of processes. What it returns is
    what was put in, or nothing: it never raises for a damaged, full or busy disk, but logs a
    warning and goes on without.
    """

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._closed = False
        self._finalizer: weakref.finalize[[], EmbeddingCache] | None = None
        self.flights = Flights()
        """What is being computed now by the engines that use this cache."""

    @classmethod
    def in_memory(
        cls,
        *,
        max_bytes: int | None = DEFAULT_MEMORY_BYTES,
        max_entries: int | None = None,
        ttl_s: float | None = None,
        autosave_path: str | Path | None = None,
        autosave_interval_s: float = AUTOSAVE_INTERVAL_S,
    ) -> Self:
        """Make a cache in this process's memory.

        Args:
            max_bytes: Most bytes; the least recently used vectors make room. None: no limit.
            max_entries: Most vectors; None: no limit.
            ttl_s: Seconds after which a vector is dropped; None: never.
            autosave_path: A file that is loaded now, and written again from time to time and at
                the end. One process at a time should use it.
            autosave_interval_s: How often it is written, where something has changed.

        Raises:
            ConfigurationError: A number out of its range, or a file that cannot be used.
        """
        _check_least("max_bytes", max_bytes, 1)
        _check_least("max_entries", max_entries, 1)
        if ttl_s is not None and not ttl_s > 0:
            raise ConfigurationError(f"ttl_s = {ttl_s!r}; it has to be over 0, or None for ever")
        if not autosave_interval_s > 0:
            raise ConfigurationError(
                f"autosave_interval_s = {autosave_interval_s!r}; it has to be over 0"
            )
        memory = MemoryCache(max_bytes=max_bytes, max_entries=max_entries, ttl_s=ttl_s)
        cache = cls(memory)
        if autosave_path is not None:
            path = _full_path(autosave_path)
            portable.require_writable(path)
            portable.restore_or_set_aside(memory, path)
            saver = AutoSave(memory, path, interval_s=autosave_interval_s)
            cache._finalizer = weakref.finalize(cache, saver.stop)
        return cache

    @classmethod
    def on_disk(cls, path: str | Path, *, max_bytes: int | None = DEFAULT_DISK_BYTES) -> Self:
        """Make or open a cache in a file.

        Args:
            path: The file, on a local disk. SQLite keeps two more beside it, and there is a lock.
            max_bytes: About how large it may get; None: no limit.

        Raises:
            ConfigurationError: A limit below `MIN_DISK_BYTES`, or a file that cannot be used.
        """
        _check_least("max_bytes", max_bytes, MIN_DISK_BYTES)
        return cls(DiskCache(_full_path(path), max_bytes=max_bytes))

    @classmethod
    def tiered(
        cls,
        path: str | Path,
        *,
        max_bytes: int | None = DEFAULT_DISK_BYTES,
        max_memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
        max_memory_entries: int | None = None,
    ) -> Self:
        """Make or open a cache in a file, with memory in front of it.

        Args:
            path: The file, as for `on_disk`.
            max_bytes: About how large it may get; None: no limit.
            max_memory_bytes: Most bytes in memory; None: no limit.
            max_memory_entries: Most vectors in memory; None: no limit.

        Raises:
            ConfigurationError: A limit out of its range, or a file that cannot be used.
        """
        _check_least("max_bytes", max_bytes, MIN_DISK_BYTES)
        _check_least("max_memory_bytes", max_memory_bytes, 1)
        _check_least("max_memory_entries", max_memory_entries, 1)
        memory = MemoryCache(max_bytes=max_memory_bytes, max_entries=max_memory_entries)
        return cls(TieredCache(memory, DiskCache(_full_path(path), max_bytes=max_bytes)))

    def get(self, key: bytes) -> CachedVector | None:
        """Return a vector, which is read-only; None where it is not there."""
        return self.get_many([key])[0]

    def put(self, key: bytes, value: CachedVector) -> None:
        """Keep a vector.

        Raises:
            InvalidInputTypeError: The key is not one of `cache_key`, or the vector no float32 row.
            InvalidInputError: The vector has NaN or infinity in it.
        """
        self.put_many([(key, value)])

    def get_many(self, keys: Sequence[bytes]) -> list[CachedVector | None]:
        """Return what is there, in the order of the keys; None for what is not."""
        return self._tier.get_many(keys) if keys else []

    def put_many(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Keep vectors.

        Raises:
            InvalidInputTypeError: A key is not one of `cache_key`, or a vector no float32 row.
            InvalidInputError: A vector has NaN or infinity in it. Of these items none is kept.
        """
        for position, (key, value) in enumerate(items):
            check_item(key, value, position=position)
        if items:
            self._tier.put_many(items)

    def warm(
        self,
        engine: CachingEngine,
        model: str | None,
        texts: Iterable[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
    ) -> int:
        """Have an engine embed texts, so that this cache, which it was made with, has them.

        A vector is found again by calls with the same options: give those that will be used. Other
        lengths and precisions are made from what is kept. Blocks until all is done.

        Args:
            engine: The engine.
            model: The loaded model's name.
            texts: Any number; a few thousand are held at a time.
            kind: The role of the texts, as for `EmbeddingEngine.embed`; so are all that follow.
            prompt: What to put in front instead.
            prompt_name: Which of the model's prompts to put in front instead.
            overflow: What happens to a text over the limit.
            truncate_side: Which end a cut takes away.
            max_tokens: A lower limit than the model's.
            window_overlap: Tokens that neighbouring windows share.
            normalization: Other than the model's configuration says.

        Returns:
            How many of the texts were not there yet.

        Raises:
            ConfigurationError: The engine was not made with this cache, or the cache is closed.
        """
        self._open_tier()
        if engine.cache is not self:
            raise ConfigurationError(
                f"the engine {'has no cache' if engine.cache is None else 'uses another cache'}, "
                "so that nothing would be kept in this one: make it with "
                "EmbeddingEngine(cache=...) and this cache"
            )
        if isinstance(texts, str):
            raise InvalidInputTypeError("texts is one str; give a list, even of one text")
        source, start, n_new = iter(texts), 0, 0
        while part := list(islice(source, _WARM_TEXTS)):
            try:
                done = engine.embed_detailed(
                    model,
                    part,
                    kind=kind,
                    prompt=prompt,
                    prompt_name=prompt_name,
                    overflow=overflow,
                    truncate_side=truncate_side,
                    max_tokens=max_tokens,
                    window_overlap=window_overlap,
                    normalization=normalization,
                )
            except EmbellamaError as exc:
                exc.add_note(f"Positions are counted from text {start} of those to warm with.")
                raise
            start += len(part)
            n_new += sum(not report.cached for report in done.texts)
        return n_new

    def save(self, path: str | Path) -> int:
        """Write everything to one file, to `load` at the next start.

        Returns:
            How many vectors were written.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        return portable.save(self._open_tier(), _full_path(path))

    def load(self, path: str | Path) -> int:
        """Add what `save` or `export` wrote.

        A file that is not there adds nothing. One that is damaged adds nothing and is set aside,
        with a warning.

        Returns:
            How many vectors were read.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return portable.restore_or_set_aside(self._open_tier(), _full_path(path))

    def export(self, path: str | Path) -> int:
        """Write everything to one file, for another machine; the same as `save`."""
        return self.save(path)

    def import_(self, path: str | Path) -> int:
        """Add what `export` wrote, all of it or nothing.

        Returns:
            How many vectors were read.

        Raises:
            ConfigurationError: The file is not there, cannot be read, or is not what was written.
        """
        full = _full_path(path)
        try:
            return portable.restore(self._open_tier(), full)
        except DamagedFileError as exc:
            raise ConfigurationError(
                f"{str(full)!r} is no sound export of a cache ({exc}): export it again, and copy "
                "it as a binary file"
            ) from exc

    def clear(self) -> None:
        """Drop everything; of a file, for all processes.

        Raises:
            ConfigurationError: The file cannot be written, or the cache is closed.
        """
        self._open_tier().clear()

    def stats(self) -> CacheStats:
        """Count hits, misses and what is kept."""
        return self._tier.stats()

    def close(self) -> None:
        """Save where that was asked for, and let go of files. May be called again.

        From then on nothing is found and nothing kept; engines go on without.
        """
        if self._finalizer is not None:
            self._finalizer()
        self._closed = True
        self._tier.close()

    def _open_tier(self) -> Tier:
        if self._closed:
            raise ConfigurationError("the cache is closed; make a new one")
        return self._tier

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ConfigurationError(f"{name} = {value!r}; it has to be an int, or None for no limit")
    if value is not None and value < least:
        raise ConfigurationError(
            f"{name} = {value}; it has to be at least {least}, or None for no limit"
        )


def _full_path(path: str | Path) -> Path:
    if "\0" in str(path):
        raise ConfigurationError(f"{str(path)!r} has a NUL, which no path can have; leave it out")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as exc:
        raise ConfigurationError(
            f"{str(path)!r} begins with a user whose home directory is not known; write it in full"
        ) from exc

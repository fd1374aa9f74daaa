"""Loaded models by name: leased while in use, swapped whole, evicted when memory is short."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from embellama.errors import ModelLoadError, ModelNotFoundError, OverloadedError
from embellama.logs import log


class Closable(Protocol):
    """What the registry needs of a model."""

    @property
    def memory_bytes(self) -> int:
        """Bytes it takes now."""
        ...

    def close(self) -> None:
        """Free it; nobody uses it any more."""
        ...


M = TypeVar("M", bound=Closable)


@dataclass(eq=False)
class _Entry(Generic[M]):
    """A model under a name.

    ``retired`` means that no new lease is given; who ends the last one closes the model.
    """

    model: M
    key: object
    n_leases: int = 0
    retired: bool = False
    last_used: float = field(default_factory=time.monotonic)


class ModelRegistry(Generic[M]):
    """Thread-safe map from names to models.

    Models are opened and closed outside the lock, so that a slow load of one model never keeps
    another from being used.
    """

    def __init__(self, *, memory_limit_bytes: int | None = None) -> None:
        self._limit = memory_limit_bytes
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry[M]] = {}
        self._loading: set[str] = set()
        self._reserved: dict[str, int] = {}

    def names(self) -> list[str]:
        """List the loaded names in the order of loading."""
        with self._changed:
            return list(self._entries)

    def has(self, name: str) -> bool:
        """Tell whether a model of this name is loaded."""
        with self._changed:
            return name in self._entries

    @contextmanager
    def lease(self, name: str) -> Iterator[M]:
        """Hold a model so that nobody frees it meanwhile.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded; the message says what is.
        """
        with self._changed:
            entry = self._entries.get(name)
            if entry is None:
                raise ModelNotFoundError(_unknown(name, list(self._entries)))
            entry.n_leases += 1
            entry.last_used = time.monotonic()
        try:
            yield entry.model
        finally:
            self._give_back(entry)

    def _give_back(self, entry: _Entry[M]) -> None:
        with self._changed:
            entry.n_leases -= 1
            entry.last_used = time.monotonic()
            ends = entry.retired and entry.n_leases == 0
            self._changed.notify_all()
        if ends:
            entry.model.close()

    def load(self, name: str, key: object, open_model: Callable[[], M], *, n_bytes: int) -> M:
        """Put a model under a name, opening it once however many threads ask.

        The same key under the same name is answered with what is there. Another key swaps: new
        work goes to the new model at once, and the old one is freed when its work is done.

        Args:
            name: The name.
            key: What tells one model and its settings from another.
            open_model: Opens it; called without the lock.
            n_bytes: What it will take, as far as that is known before.

        Raises:
            ModelLoadError: It can never fit into the memory limit.
            OverloadedError: It does not fit beside the models in use.
        """
        with self._changed:
            while name in self._loading:
                self._changed.wait()
            entry = self._entries.get(name)
            if entry is not None and entry.key == key:
                entry.last_used = time.monotonic()
                return entry.model
            evicted = self._make_room(name, n_bytes)
            self._loading.add(name)
            self._reserved[name] = n_bytes
        old: _Entry[M] | None = None
        try:
            for other in evicted:
                other.model.close()
            model = open_model()
            with self._changed:
                old = self._entries.pop(name, None)
                self._entries[name] = _Entry(model, key)
                idle = old is not None and self._retire(old)
        finally:
            with self._changed:
                self._loading.discard(name)
                self._reserved.pop(name, None)
                self._changed.notify_all()
        if old is not None and idle:
            old.model.close()
        return model

    def _retire(self, entry: _Entry[M]) -> bool:
        """Give no new lease of it; True if it is idle and the caller has to close it."""
        entry.retired = True
        return entry.n_leases == 0

    def _make_room(self, name: str, n_bytes: int) -> list[_Entry[M]]:
        """Take idle models out, least recently used first, until the new one fits."""
        if self._limit is None:
            return []
        if n_bytes > self._limit:
            raise ModelLoadError(
                f"{name!r} needs about {n_bytes:,} bytes and the memory limit is {self._limit:,}; "
                "raise memory_limit_bytes or choose a smaller file type"
            )
        taken = sum(e.model.memory_bytes for e in self._entries.values())
        taken += sum(self._reserved.values())
        idle = sorted(
            (item for item in self._entries.items() if item[1].n_leases == 0),
            key=lambda item: item[1].last_used,
        )
        chosen: list[str] = []
        for other, entry in idle:
            if taken + n_bytes <= self._limit:
                break
            chosen.append(other)
            taken -= entry.model.memory_bytes
        if taken + n_bytes > self._limit:
            raise OverloadedError(
                f"{name!r} needs about {n_bytes:,} bytes, {taken:,} of the {self._limit:,} allowed "
                "are held by models in use; try again when they are idle or raise "
                "memory_limit_bytes"
            )
        for other in chosen:
            log.info("embellama.model.evicted", model=other, for_model=name)
        evicted = [self._entries.pop(other) for other in chosen]
        for entry in evicted:
            self._retire(entry)
        return evicted

    def unload(self, name: str, *, timeout_s: float) -> None:
        """Free a model when its running work is done; new work is refused at once.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
            OverloadedError: Work still runs after the time-out; the model stays loaded.
        """
        with self._changed:
            entry = self._entries.pop(name, None)
            if entry is None:
                raise ModelNotFoundError(_unknown(name, list(self._entries)))
            deadline = time.monotonic() + timeout_s
            while entry.n_leases and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if entry.n_leases:
                if name not in self._entries and name not in self._loading:
                    self._entries[name] = entry
                else:  # another model took the name meanwhile
                    self._retire(entry)
                raise OverloadedError(
                    f"{name!r} is still in use by {entry.n_leases} call(s) after {timeout_s:g} s; "
                    "unload it later or with a longer unload_timeout_s"
                )
            self._retire(entry)
        entry.model.close()
        log.info("embellama.model.unloaded", model=name)


def _unknown(name: str, loaded: list[str]) -> str:
    have = ", ".join(repr(other) for other in loaded) or "none"
    return f"no model {name!r} is loaded; loaded: {have}; call load_model({name!r}) first"

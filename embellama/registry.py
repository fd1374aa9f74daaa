"""Loaded models by name: leased while in use, swapped whole, evicted when memory is short."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from embellama.errors import ContextError, ModelLoadError, ModelNotFoundError, OverloadedError
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

MEMORY_LOOK_S = 0.1
"""How often a load that may wait for memory looks whether there is any."""


@dataclass(eq=False)
class _Entry(Generic[M]):
    """A model under a name.

    ``retired`` means that no new lease is given; who ends the last one closes the model.
    ``running`` counts, by the thread that took them, the leases that are not suspended.
    """

    model: M
    key: object
    n_leases: int = 0
    running: dict[int, int] = field(default_factory=dict)
    retired: bool = False
    last_used: float = field(default_factory=time.monotonic)


class Lease(Generic[M]):
    """A model that nobody frees meanwhile.

    Attributes:
        model: The model.
        entry: Where it is counted.
        is_counted: Whether it is.
        is_suspended: Whether closing need not wait for it.
        is_use: Whether it makes the model a recently used one; looking at it does not.
        frees_elsewhere: Whether a model that ends with it is freed on another thread, since this
            one has others to serve, or only looks.
    """

    def __init__(
        self, entry: _Entry[M], changed: threading.Condition, *, is_use: bool = True
    ) -> None:
        self.model = entry.model
        self.entry = entry
        self.is_use = is_use
        self.frees_elsewhere = not is_use
        self._changed = changed
        self._thread = threading.get_ident()
        self.is_counted = False
        self.is_suspended = False

    def run(self, change: int) -> None:
        """Count it among those that run, or no longer. The lock is held."""
        running = self.entry.running
        running[self._thread] = running.get(self._thread, 0) + change
        if not running[self._thread]:
            del running[self._thread]  # threads come and go

    def suspend(self) -> None:
        """Say that nothing runs until `resume`: closing the registry does not wait for it."""
        self._set_suspended(True)

    def resume(self) -> None:
        """Say that work goes on."""
        self._set_suspended(False)

    def _set_suspended(self, suspended: bool) -> None:
        with self._changed:
            self.run(int(self.is_suspended) - int(suspended))
            self.is_suspended = suspended
            self._changed.notify_all()


@dataclass(eq=False, frozen=True, slots=True)
class _Reservation:
    """The memory that a model which is being loaded will take."""

    n_bytes: int


class ModelRegistry(Generic[M]):
    """Thread-safe map from names to models.

    Models are opened and closed outside the lock, so that a slow load of one model never keeps
    another from being used.
    """

    def __init__(self, *, memory_limit_bytes: int | None = None) -> None:
        self._limit = memory_limit_bytes
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry[M]] = {}
        self._retired: set[_Entry[M]] = set()
        self._loading: dict[str, _Reservation] = {}
        self._closed = False
        self._process_id = os.getpid()

    def names(self) -> list[str]:
        """List the loaded names in the order of loading."""
        with self._changed:
            return list(self._entries)

    @contextmanager
    def lease(self, name: str, *, is_use: bool = True) -> Iterator[Lease[M]]:
        """Hold a model so that nobody frees it meanwhile.

        Args:
            name: The name.
            is_use: Whether that makes it a recently used one.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded; the message says what is.
        """
        lease: Lease[M] | None = None
        try:
            with self._changed:
                entry = self._entries.get(name)
                if entry is None:
                    raise ModelNotFoundError(_unknown(name, list(self._entries)))
                lease = Lease(entry, self._changed, is_use=is_use)
                lease.run(1)
                # no call between the two lines, so that Ctrl-C finds both done or neither
                lease.is_counted = True
                entry.n_leases += 1
                if is_use:
                    entry.last_used = time.monotonic()
            yield lease
        finally:
            if lease is not None and lease.is_counted:
                self._give_back(lease, lease.entry)

    def _give_back(self, lease: Lease[M], entry: _Entry[M]) -> None:
        if os.getpid() != self._process_id:
            return  # a forked child has neither the workers nor a lock it can trust
        try:
            self._end(lease, entry)
        except KeyboardInterrupt:
            self._end(lease, entry)  # closing would wait for a lease that nobody has any more
            raise

    def _end(self, lease: Lease[M], entry: _Entry[M]) -> None:
        with self._changed:
            if lease.is_counted:
                lease.is_counted = False
                entry.n_leases -= 1
                lease.run(int(lease.is_suspended) - 1)
            if lease.is_use:
                entry.last_used = time.monotonic()
            ends = entry in self._retired and entry.retired and entry.n_leases == 0
            self._changed.notify_all()
        if ends and not (lease.frees_elsewhere and self._free_elsewhere(entry)):
            self._free(entry)

    def load(
        self,
        name: str,
        key: object,
        open_model: Callable[[], M],
        *,
        n_bytes: int,
        wait_s: float = 0.0,
    ) -> M:
        """Put a model under a name, opening it once however many threads ask.

        The same key under the same name is answered with what is there. Another key swaps: new
        work goes to the new model at once, and the old one is freed when its work is done. Under a
        memory limit without room for both, the old one is freed first.

        Args:
            name: The name.
            key: What tells one model and its settings from another.
            open_model: Opens it; called without the lock.
            n_bytes: What it will take, as far as that is known before.
            wait_s: Longest to wait for memory that models in use take.

        Raises:
            ModelLoadError: It can never fit into the memory limit.
            OverloadedError: It does not fit beside the models in use.
            ContextError: The registry was closed meanwhile.
        """
        until_s = time.monotonic() + wait_s
        with self._changed:
            evicted = None
            while evicted is None:
                while name in self._loading:
                    self._changed.wait()
                if self._closed:
                    raise _closed_while(name)
                entry = self._entries.get(name)
                if entry is not None and entry.key == key:
                    entry.last_used = time.monotonic()
                    return entry.model
                try:
                    evicted = self._make_room(name, n_bytes)
                except OverloadedError:
                    left_s = until_s - time.monotonic()
                    if left_s <= 0.0:
                        raise
                    # not sooner: what was loaded just now is idle until who loaded it uses it
                    self._wait(lambda: False, min(left_s, MEMORY_LOOK_S))
            self._loading[name] = reservation = _Reservation(n_bytes)
        try:
            for other in evicted:
                self._free(other)
            model = open_model()
            idle = self._publish(name, _Entry(model, key))
        finally:
            with self._changed:
                if self._loading.get(name) is reservation:  # it was not published
                    del self._loading[name]
                self._changed.notify_all()
        if idle is not None:
            self._free(idle)
        return model

    def _publish(self, name: str, entry: _Entry[M]) -> _Entry[M] | None:
        """Put the entry under the name; return the old one if the caller has to free it.

        From that moment the model counts, and what was reserved for it no longer does.
        """
        with self._changed:
            if not self._closed:
                del self._loading[name]
                old = self._entries.pop(name, None)
                self._entries[name] = entry
                return old if old is not None and self._retire(old) else None
        entry.model.close()
        raise _closed_while(name)

    def _retire(self, entry: _Entry[M]) -> bool:
        """Give no new lease of it; True if it is idle and the caller has to free it."""
        entry.retired = True
        self._retired.add(entry)
        return entry.n_leases == 0

    def _free(self, entry: _Entry[M]) -> None:
        try:
            entry.model.close()
        finally:
            with self._changed:
                self._retired.discard(entry)
                self._changed.notify_all()

    def _free_elsewhere(self, entry: _Entry[M]) -> bool:
        """Free it on a thread of its own; False if none can be started any more."""
        try:
            threading.Thread(target=self._free, args=(entry,), name="embellama-closing").start()
        except RuntimeError:  # the interpreter ends
            return False
        return True

    def _make_room(self, name: str, n_bytes: int) -> list[_Entry[M]]:
        """Take idle models out, least recently used first, until the new one fits."""
        if self._limit is None:
            return []
        if n_bytes > self._limit:
            raise ModelLoadError(
                f"{name!r} needs about {n_bytes:,} bytes and the memory limit is {self._limit:,}; "
                "raise memory_limit_bytes or choose a smaller file type"
            )
        alive = (*self._entries.values(), *self._retired)
        taken = sum(entry.model.memory_bytes for entry in alive)
        taken += sum(reservation.n_bytes for reservation in self._loading.values())
        idle = sorted(
            (item for item in self._entries.items() if item[1].n_leases == 0),
            key=lambda item: (item[0] == name, item[1].last_used),
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

        Does not wait for work of the thread that unloads, which cannot end while it waits: the
        model is freed when that ends.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
            OverloadedError: Work still runs after the time-out; the model stays loaded.
        """
        with self._changed:
            entry = self._entries.pop(name, None)
            if entry is None:
                raise ModelNotFoundError(_unknown(name, list(self._entries)))
            self._retired.add(entry)  # counted while it is waited for
            own = threading.get_ident()

            def n_of_others() -> int:
                return entry.n_leases - entry.running.get(own, 0)

            try:
                self._wait(lambda: n_of_others() == 0, timeout_s)
            except BaseException:
                self._keep(name, entry)
                raise
            if n_of_others():
                self._keep(name, entry)
                raise OverloadedError(
                    f"{name!r} is still in use by {n_of_others()} call(s) after {timeout_s:g} s; "
                    "unload it later or with a longer time-out"
                )
            is_idle = self._retire(entry)
        if is_idle:
            self._free(entry)
        log.info("embellama.model.unloaded", model=name)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> None:
        self._changed.wait_for(done, min(timeout_s, threading.TIMEOUT_MAX))

    def _keep(self, name: str, entry: _Entry[M]) -> None:
        """Put back what could not be unloaded, unless another model has the name by now."""
        if name in self._entries or name in self._loading or self._closed:
            self._retire(entry)
        else:
            self._retired.discard(entry)
            self._entries[name] = entry

    def close(self, *, timeout_s: float = 0.0) -> None:
        """Free every model, each when its running work is done. May be called again.

        Waits for that work up to the time-out, but neither for suspended leases nor for those of
        the thread that closes, which cannot end while it waits; where Ctrl-C ended a call, its
        frames may still hold one. Their models are freed when they end. Nothing can be loaded any
        more.
        """
        if os.getpid() != self._process_id:
            return  # the parent's models are not a forked child's to free
        with self._changed:
            self._closed = True
            entries = list(self._entries.values())
            self._entries.clear()
            idle = [entry for entry in entries if self._retire(entry)]
        for entry in idle:
            self._free(entry)
        own = threading.get_ident()

        def count_of_others() -> int:
            return sum(
                count
                for entry in entries
                for thread, count in entry.running.items()
                if thread != own
            )

        with self._changed:
            self._wait(lambda: count_of_others() == 0, timeout_s)
            n_running = count_of_others()
        if n_running:
            log.warning("embellama.engine.outlived", n_calls=n_running, timeout_s=timeout_s)


def _closed_while(name: str) -> ContextError:
    return ContextError(f"the engine was closed while {name!r} was being loaded")


def _unknown(name: str, loaded: list[str]) -> str:
    have = ", ".join(repr(other) for other in loaded) or "none"
    return f"no model {name!r} is loaded; loaded: {have}; call load_model({name!r}) first"

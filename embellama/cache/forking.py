"""Locks that a fork does not leave held for ever in the child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self
from weakref import WeakMethod, WeakSet


class ForkLock:
    """A reentrant lock that is taken before every fork and given back after it.

    A child has only the thread that forked: a lock that another thread held would never be free
    again there, and what it guards would be half changed.

    Args:
        before_fork: A method to call, with the lock held, before the process forks.
    """

    def __init__(self, before_fork: Callable[[], None] | None = None) -> None:
        self.inner = threading.RLock()
        self._before_fork = WeakMethod(before_fork) if before_fork is not None else None
        with _registry:
            _locks.add(self)

    def __enter__(self) -> Self:
        self.inner.acquire()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.inner.release()

    def prepare(self) -> None:
        """Take the lock for the fork, and call what is to be called."""
        self.inner.acquire()
        if self._before_fork is not None and (method := self._before_fork()) is not None:
            method()


_registry = threading.RLock()
_locks: WeakSet[ForkLock] = WeakSet()
_held: list[ForkLock] = []


def _before() -> None:
    _registry.acquire()
    for lock in list(_locks):
        _held.append(lock)
        lock.prepare()


def _in_parent() -> None:
    while _held:
        _held.pop().inner.release()
    _registry.release()


def _in_child() -> None:
    global _registry  # noqa: PLW0603  # the child's own: a lock may remember its parent's thread
    _registry = threading.RLock()
    while _held:
        _held.pop().inner = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

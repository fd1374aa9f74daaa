"""One caller's work: how urgent it is, until when it is of use, and whether anybody still waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias, get_args

from embellama.errors import ConfigurationError, EmbeddingTimeoutError, OverloadedError
from embellama.types import Priority

_PRIORITIES = get_args(Priority)


class Admission:
    """Counts the calls that run or wait, and refuses one too many. A context, from any thread.

    Args:
        limit: Most calls at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._n_calls = 0

    def enter(self) -> None:
        """Count a call.

        Raises:
            OverloadedError: There are too many.
        """
        with self._lock:
            if self._n_calls < self._limit:
                self._n_calls += 1
                return
        raise OverloadedError(
            f"{self._limit} calls run or wait already (max_concurrent_requests); try again later, "
            "give many texts in one call, or raise EngineConfig.max_concurrent_requests"
        )

    def leave(self) -> None:
        """Count it no longer."""
        with self._lock:
            self._n_calls -= 1

    def rejoin(self) -> None:
        """Count a call that goes on, also over the limit: what has begun is not refused."""
        with self._lock:
            self._n_calls += 1

    def __enter__(self) -> None:
        self.enter()

    def __exit__(self, *exc_info: object) -> None:
        self.leave()


OnComputed: TypeAlias = Callable[[int, float, float], None]
"""Told the tokens of a call that a micro-batch had, the call's share of its seconds, and when it
began, on the clock of `time.perf_counter`."""

_ON_COMPUTED: ContextVar[OnComputed | None] = ContextVar("embellama_on_computed", default=None)


@contextmanager
def told_of_computed(tell: OnComputed) -> Iterator[None]:
    """Be told how far the calls made in this context are, whatever the verb.

    Args:
        tell: Called for each micro-batch on the thread that computed it, which waits.
    """
    token = _ON_COMPUTED.set(tell)
    try:
        yield
    finally:
        _ON_COMPUTED.reset(token)


def check_seconds(name: str, value: object, *, or_none: bool = False) -> None:
    """Check an argument that is a time.

    Args:
        name: What it is called.
        value: Its value.
        or_none: Whether None would do, to be said.

    Raises:
        ConfigurationError: It is no number from 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigurationError(
            f"{name} = {value!r}; it has to be a number of seconds from 0"
            + (", or None" if or_none else "")
        )


class Call:
    """What the rooms below a verb know of who called it. Safe to use from any thread.

    Args:
        priority: Interactive calls go ahead of bulk ones.
        timeout_s: Seconds from now after which the answer is of no use; None: any time.
        caller: Who calls: the thread, unless told otherwise. One caller's calls come one after the
            other.

    Attributes:
        started_s: When that was, on the clock of `time.perf_counter`.
        waited_s: Seconds until a thread took it, where it is awaited.

    Raises:
        ConfigurationError: There is no such priority, or the time is no number from 0.
    """

    __slots__ = (
        "_deadline",
        "_is_cancelled",
        "_lock",
        "_on_cancel",
        "_on_computed",
        "caller",
        "priority",
        "started_s",
        "timeout_s",
        "waited_s",
    )

    def __init__(
        self,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
        *,
        caller: object = None,
    ) -> None:
        if not isinstance(priority, str) or priority not in _PRIORITIES:
            raise ConfigurationError(
                f"priority = {priority!r}; it has to be 'interactive' or 'bulk'"
            )
        if timeout_s is not None:
            check_seconds("timeout_s", timeout_s, or_none=True)
        self.started_s: Final = time.perf_counter()
        self.waited_s = 0.0
        self.priority: Final = priority
        self.timeout_s: Final = timeout_s
        self.caller: Final = threading.get_ident() if caller is None else caller
        self._deadline = (
            None if timeout_s is None else time.monotonic() + min(timeout_s, threading.TIMEOUT_MAX)
        )
        self._is_cancelled = False
        self._lock = threading.Lock()
        self._on_cancel: list[Callable[[], None]] = []
        self._on_computed = _ON_COMPUTED.get()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._is_cancelled or (
            self._deadline is not None and time.monotonic() >= self._deadline
        )

    def remaining_s(self, at_most: float | None = None) -> float | None:
        """Return the seconds that are left, no more than a limit; None: any number."""
        if self._deadline is None:
            return at_most
        left = min(max(self._deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        return left if at_most is None else min(left, at_most)

    def check(self) -> None:
        """Raise if the call is over.

        Raises:
            EmbeddingTimeoutError: Its time is up.
            CancelledError: It was cancelled.
        """
        if self.is_over:
            if self._is_cancelled:
                raise CancelledError
            raise self.timed_out()

    def timed_out(self) -> EmbeddingTimeoutError:
        """Say that the time is up."""
        assert self.timeout_s is not None
        return EmbeddingTimeoutError(
            f"not done within timeout_s = {self.timeout_s:g}; give it more time, fewer texts, or "
            "try again when less is going on",
            timeout_s=self.timeout_s,
        )

    def computed(self, n_tokens: int, inference_s: float, began_s: float) -> None:
        """Tell whoever wants to know what a micro-batch had of it."""
        if self._on_computed is not None:
            self._on_computed(n_tokens, inference_s, began_s)

    def cancel(self) -> None:
        """Take back what no worker has begun. May be called again, from any thread."""
        with self._lock:
            self._is_cancelled = True
            told, self._on_cancel = self._on_cancel, []
        for take_back in told:
            take_back()

    def on_cancel(self, take_back: Callable[[], None]) -> None:
        """Have something called when the call is cancelled; at once if it was before."""
        with self._lock:
            if not self._is_cancelled:
                self._on_cancel.append(take_back)
                return
        take_back()

    def off_cancel(self, take_back: Callable[[], None]) -> None:
        """Have it called no longer. Else the call holds what holds it, rows and all."""
        with self._lock:
            if take_back in self._on_cancel:
                self._on_cancel.remove(take_back)

"""How long a connection's client is waited for: timers over a transport, without uvicorn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

MIN_BYTES_PER_S = 512
"""Who reads an answer more slowly is gone. Source: the default of Apache's MinRate is 500."""


STEADY_BYTES_PER_S = 32 << 10
"""What a whole answer has to be read at, so that its memory is given back in minutes."""


class Limit:
    """A time limit that is set once and then runs, whatever happens, until it is lifted.

    Args:
        loop: Where it runs.
        passed: Called when it has passed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_running(self) -> bool:
        """Whether it was set, and has not passed."""
        return self._timer is not None

    def set(self, timeout_s: float) -> None:
        """Begin, unless one runs already."""
        if self._timer is None:
            self._timer = self._loop.call_later(timeout_s, self._pass)

    def lift(self) -> None:
        """Forget it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Forget it, and who waited for it, for good: else both hold each other."""
        self.lift()
        self._passed = _nothing

    def _pass(self) -> None:
        self._timer = None
        self._passed()


def _nothing() -> None:
    pass


class ReadingClient:
    """Looks now and then whether a client reads what is written for it, and ends it if not.

    Args:
        loop: Where it runs.
        every_s: Seconds between two looks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self._every_s = every_s
        self._limit = Limit(loop, self._look)
        self._n_before = 0
        self._n_looks_left = 0
        self._transport: asyncio.WriteTransport | None = None

    def watch(self, transport: asyncio.WriteTransport) -> None:
        """Begin to look, if there is anything to read."""
        n_left = transport.get_write_buffer_size()
        if n_left and not self._limit.is_running:
            self._n_looks_left = 1 + math.ceil(n_left / (self._every_s * STEADY_BYTES_PER_S))
            self._wait(transport, n_left)

    def leave(self) -> None:
        """Look no more."""
        self._limit.lift()

    def end(self) -> None:
        """Look no more, for good."""
        self._limit.end()

    def _wait(self, transport: asyncio.WriteTransport, n_left: int) -> None:
        self._transport, self._n_before = transport, n_left
        self._limit.set(self._every_s)

    def _look(self) -> None:
        assert self._transport is not None
        n_left = self._transport.get_write_buffer_size()
        self._n_looks_left -= 1
        is_slow = self._n_before - n_left < self._every_s * MIN_BYTES_PER_S
        if is_slow or (n_left and not self._n_looks_left):
            self._transport.abort()
        elif n_left:
            self._wait(self._transport, n_left)

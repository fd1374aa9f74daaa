"""How much may wait, of requests, of bodies and of answers: decided before any work is done."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from embellama.server.pace import ENOUGH_S, Pace, Work
from embellama.server.problems import RETRY_AFTER_S, Problem
from embellama.types import Priority

MAX_WAITING_COST = 1 << 28
"""About the bytes of all texts that may wait, so that memory is bounded whatever their number."""

FREE_BODY_BYTES = 64 << 10
"""Bodies up to this size may always come: the number of connections bounds them."""

BODIES_AT_ONCE = 8
"""Larger ones together have as many times the bytes that one may have."""

MAX_RETRY_AFTER_S = 60.0
"""Longest time that a client is told to stay away. OpenAI's clients take no longer one for true."""

MAX_UNSENT_BYTES = 1 << 28
"""Answers that may wait to be read before no new work is taken."""


class Unsent:
    """What was answered and not read yet, of the connections whose clients are behind."""

    def __init__(self) -> None:
        self._behind: set[asyncio.WriteTransport] = set()

    def add(self, transport: asyncio.WriteTransport) -> None:
        """Count a connection from now on."""
        self._behind.add(transport)

    def drop(self, transport: asyncio.WriteTransport) -> None:
        """Count it no more."""
        self._behind.discard(transport)

    @property
    def n_bytes(self) -> int:
        """Bytes that wait in memory to be read."""
        return sum(transport.get_write_buffer_size() for transport in self._behind)


class Room:
    """How much may wait: so many requests, and no longer than a time, as the pace of late tells.

    For one event loop. What was admitted is never refused later; the line is kept so short that it
    is done in time.

    Args:
        max_requests: Most requests that compute or wait.
        max_wait_s: Longest that a request should have to wait for those before it.
    """

    def __init__(self, *, max_requests: int, max_wait_s: float) -> None:
        self._max_requests = max_requests
        self._max_wait_s = max_wait_s
        self._paces: dict[str, Pace] = {}
        self._cost = 0
        self.n_requests = 0
        self.n_body_bytes = 0
        self.unsent = Unsent()

    @contextmanager
    def admitted(
        self,
        model: str,
        *,
        cost: int,
        n_texts: int,
        priority: Priority,
        is_inference: bool = True,
    ) -> Iterator[Callable[[int], None]]:
        """Hold room for a request; gives what to call, from any thread, with tokens computed of it.

        Args:
            model: The name of the model.
            cost: How much work it is: about the bytes of its texts.
            n_texts: Its texts.
            priority: Interactive requests wait for interactive ones alone.
            is_inference: Whether it waits for workers; else it waits for nobody.

        Raises:
            Problem: There is no room; 503, with the time until there may be.
        """
        self._check(cost, self.wait_s(priority) if is_inference else 0.0)
        pace = self._paces.get(model)
        if pace is None:
            pace = self._paces[model] = Pace(min(ENOUGH_S, self._max_wait_s / 2))
        start = time.monotonic()
        self.n_requests += 1
        self._cost += cost
        work = Work(cost, n_texts, priority) if is_inference else Work(0, 0, priority)
        pace.came(work, now=start)
        is_done = False
        try:
            yield partial(pace.computed, work)
            is_done = True
        finally:
            self.n_requests -= 1
            self._cost -= cost
            now = time.monotonic()
            took_s = now - start if is_done else None
            pace.went(work, done_in_s=took_s, now=now)

    def _check(self, cost: int, wait_s: float) -> None:
        if self.n_requests >= self._max_requests:
            raise self._refused(f"{self.n_requests} requests run or wait", wait_s)
        if wait_s > self._max_wait_s:
            raise self._refused(f"a request would wait for {wait_s:.1f} s", wait_s)
        if self.n_requests and self._cost + cost > MAX_WAITING_COST:
            raise self._refused(f"texts of about {self._cost:,} bytes wait", wait_s)

    @contextmanager
    def body(self, limit: int) -> Iterator[Callable[[int], None]]:
        """Hold memory for a body while it comes; gives what to call with its bytes until now.

        Args:
            limit: Most bytes of one body.
        """
        held = 0

        def came(n_bytes: int) -> None:
            nonlocal held
            is_free = n_bytes <= FREE_BODY_BYTES
            more = 0 if is_free else n_bytes - held
            if self.n_body_bytes + more > BODIES_AT_ONCE * limit:
                raise Problem(
                    503,
                    "overloaded",
                    f"large bodies are being read, {self.n_body_bytes:,} bytes of them; send "
                    "smaller ones, or try again later",
                    retry_after_s=RETRY_AFTER_S,
                )
            self.n_body_bytes += more
            held += more

        try:
            yield came
        finally:
            self.n_body_bytes -= held

    def check_unsent(self) -> None:
        """Refuse new work while clients do not read what was done for them.

        Raises:
            Problem: Too much of it is in memory; 503.
        """
        n_bytes = self.unsent.n_bytes
        if n_bytes > MAX_UNSENT_BYTES:
            raise Problem(
                503,
                "overloaded",
                f"answers of {n_bytes:,} bytes are not read by their clients yet, and the limit is "
                f"{MAX_UNSENT_BYTES:,}; read yours, or try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    def wait_s(self, priority: Priority = "bulk") -> float:
        """Estimate how long a request that comes now would wait, in seconds.

        That of all models together: they share the cores, so each makes the others slower, and a
        wait that is promised too long refuses a request that could have been tried elsewhere, while
        one that is too short fails after it cost something.
        """
        now, waits_s = time.monotonic(), 0.0
        for pace in self._paces.values():
            pace.look(now)
            waits_s += pace.wait_s(priority)
        return waits_s

    def of_model(self, model: str) -> tuple[int, int]:
        """Return the requests and texts of a model that compute or wait."""
        pace = self._paces.get(model)
        return (0, 0) if pace is None else (pace.n_requests, pace.n_texts)

    @property
    def n_texts(self) -> int:
        """Texts that compute or wait."""
        return sum(pace.n_texts for pace in self._paces.values())

    def _refused(self, why: str, wait_s: float) -> Problem:
        return Problem(
            503,
            "overloaded",
            f"{why}, and the limits are {self._max_requests} requests and {self._max_wait_s:g} s; "
            "try again later",
            retry_after_s=min(max(1.0, math.ceil(wait_s - self._max_wait_s)), MAX_RETRY_AFTER_S),
        )

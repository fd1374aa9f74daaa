"""How often each client may ask."""

from __future__ import annotations

import time
from collections import OrderedDict

from embellama.server.problems import Problem

MAX_CLIENTS = 10_000
"""Clients whose buckets are remembered; a forgotten one begins with a full bucket again."""


class TokenBuckets:
    """A token bucket for each client: ``rate`` requests a second, ``burst`` at once.

    Args:
        rate: Tokens that a bucket gains in a second; None: no limit.
        burst: Tokens of a full bucket; None: ten seconds' worth.
    """

    def __init__(self, rate: float | None, burst: int | None = None) -> None:
        self._rate = rate
        self._burst = float(burst) if burst is not None else max(1.0, 10.0 * (rate or 0.0))
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, *, now: float | None = None) -> None:
        """Take one token.

        Raises:
            Problem: There is none; 429, with the time until there is.
        """
        if self._rate is None:
            return
        now = time.monotonic() if now is None else now
        level, since = self._buckets.pop(client, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        if level >= 1.0:
            self._keep(client, level - 1.0, now)
            return
        self._keep(client, level, now)
        raise Problem(
            429,
            "rate_limited",
            f"more than {self._rate:g} requests a second, after {self._burst:g} at once; slow "
            "down, or give many texts in one request",
            retry_after_s=(1.0 - level) / self._rate,
        )

    def _keep(self, client: str, level: float, now: float) -> None:
        self._buckets[client] = (level, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)

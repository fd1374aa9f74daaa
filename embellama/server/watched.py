"""What workers do for a request, told while they do it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Watched:
    """The computing of one request, as its engine's calls tell of it. For any threads.

    Args:
        on_tokens: Told of the tokens of each micro-batch.
    """

    def __init__(self, on_tokens: Callable[[int], None]) -> None:
        self._on_tokens = on_tokens
        self._start_s = time.perf_counter()
        self._spent_s: list[float] = []
        self._began_s: list[float] = []

    def __call__(self, n_tokens: int, inference_s: float, began_s: float) -> None:
        """Note a part of a micro-batch that is the request's; see `OnComputed`."""
        self._spent_s.append(inference_s)
        self._began_s.append(began_s)
        self._on_tokens(n_tokens)

    @property
    def queue_s(self) -> float:
        """Seconds until its first text was begun."""
        return max(min(self._began_s) - self._start_s, 0.0) if self._began_s else 0.0

    @property
    def inference_s(self) -> float:
        """Seconds of computing, added up over the workers."""
        return sum(self._spent_s)

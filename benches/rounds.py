"""Things timed in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


def timed(run: Callable[[], object]) -> float:
    """Return the seconds something takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each thing once a round, in turns, so that a machine that slows down slows them all.

    A first round is not counted: it finds memory mapped and contexts made.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names, shuffled = list(runs), random.Random(1)
    for number in range(rounds + 1):
        for name in names:
            taken = timed(runs[name])
            if number:
                seconds[name].append(taken)
        shuffled.shuffle(names)  # none always comes after the same other one
    return seconds

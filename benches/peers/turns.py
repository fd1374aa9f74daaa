"""The order of turns, and what was measured in them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benches.peers.process import PeerError, PeerProcess

PAUSE_S = 0.05
"""Between two turns: what still spins after its own has stopped by then."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """One peer's time for one work in one round.

    Attributes:
        round: Counted from 0.
        work: Which texts.
        peer: Whose turn it was.
        seconds: Wall-clock time from texts to vectors.
        idle_cpu_s: Processor's time its process took since its turn before.
        p50_s: Where texts were embedded one by one, the median of a text.
    """

    round: int
    work: str
    peer: str
    seconds: float
    idle_cpu_s: float
    p50_s: float | None = None


def shuffled(items: Sequence[T], seed: int) -> list[T]:
    """Return another order for each seed, so that none always comes after the same other one."""
    order = list(items)
    random.Random(seed).shuffle(order)
    return order


def take_turns(
    peers: Mapping[str, PeerProcess],
    works: Sequence[str],
    n_rounds: int,
    on_failure: Callable[[str, PeerError], None],
) -> Iterator[Turn]:
    """Yield what each peer takes for each work, round by round.

    Each round and each work has an order of its own. One that fails has no more turns.
    """
    alive = list(peers)
    for number in range(n_rounds):
        for index, work in enumerate(works):
            for name in shuffled(alive, number * len(works) + index):
                time.sleep(PAUSE_S)
                try:
                    answer = peers[name].ask("run", work=work)
                except PeerError as exc:
                    alive.remove(name)
                    on_failure(name, exc)
                    continue
                yield Turn(
                    number, work, name, answer["seconds"], answer["idle_cpu_s"], answer.get("p50_s")
                )

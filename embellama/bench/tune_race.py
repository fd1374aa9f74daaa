"""Which of many candidates is the fastest, found in a given time on a machine that is not quiet.

Every round measures each candidate that is left once, in a new order, so that what else the machine
does hits all alike; after each stage the slower half goes (successive halving). Candidates are only
ever compared over rounds that both took part in.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", 2016, for halving; the median of paired ratios in place of the mean is against noise.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from embellama.errors import EmbeddingGenerationError

C = TypeVar("C", bound=Hashable)

Measure = Callable[[C, float], float]
"""Measures a candidate for about so many seconds, and returns what it got done in each."""

ROUNDS_PER_STAGE = 12
SHORTEST_SLICE_S = 0.02
LONGEST_SLICE_S = 0.1
"""A slice is long enough for some passes and short enough that a round sees one state of things."""

FINALISTS = 3
TIE = 0.005
LARGEST_TIE = 0.015
"""Differences below the first never count as one; above the second they always do."""

FEWEST_ROUNDS = 3
"""With fewer, nothing is known of the noise, and it is taken to be large."""

SPENT = "the time was used up before"


@dataclass(frozen=True, slots=True)
class Result(Generic[C]):
    """What a race came to.

    Attributes:
        best: The candidate to take: the fastest, or an earlier one that is as fast within noise.
        rates: What each got done in a second, as the median of its rounds.
        gains: The same over the first candidate's, as the median over rounds of both.
        dropped: Why a candidate was not measured.
        n_rounds: How often the best one was measured.
        cost_s: What the last measurement of the first candidate took.
    """

    best: C
    rates: dict[C, float]
    gains: dict[C, float]
    dropped: dict[C, str]
    n_rounds: int
    cost_s: float


@dataclass(slots=True)
class _Race(Generic[C]):
    """A race that runs: who is left, and what was measured."""

    alive: list[C]
    measure: Measure[C]
    size_of: Callable[[C], float]
    clock: Callable[[], float]
    shuffler: random.Random
    rounds: list[dict[C, float]] = field(default_factory=list)
    dropped: dict[C, str] = field(default_factory=dict)
    costs: dict[C, float] = field(default_factory=dict)

    def run_first(self, end: float, slice_s: float) -> None:
        """Measure each once, as far as the time goes; those it does not reach are dropped."""
        self._keep(self._run_round(end, slice_s))

    def run_until(self, end: float, slice_s: float) -> None:
        """Run whole rounds until the next one would end too late."""
        while self.clock() + sum(map(self._cost, self.alive)) <= end:
            self._keep(self._run_round(math.inf, slice_s))

    def _keep(self, found: dict[C, float]) -> None:
        self.alive = [one for one in self.alive if one in found]
        self.rounds.append(found)

    def _run_round(self, end: float, slice_s: float) -> dict[C, float]:
        found: dict[C, float] = {}
        first, *others = self.alive
        self.shuffler.shuffle(others)
        if not self.rounds:  # small ones first: they tell what large ones will take
            others.sort(key=self.size_of)
        for candidate in (first, *others):
            start = self.clock()
            if found and start + self._cost(candidate) > end:
                self.dropped[candidate] = SPENT
                continue
            try:
                found[candidate] = self.measure(candidate, slice_s)
            except EmbeddingGenerationError as exc:
                if candidate == first:
                    raise  # nothing can be compared with it, and it has to work
                self.dropped[candidate] = str(exc)
            self.costs[candidate] = self.clock() - start
        return found

    def _cost(self, candidate: C) -> float:
        """Predict the seconds of a measurement from its last one, or from the others'.

        From their middle: one that is slow beyond all measure tells nothing of the rest.
        """
        if candidate in self.costs:
            return self.costs[candidate]
        size = self.size_of(candidate)
        scaled = [cost * max(size / self.size_of(one), 1) for one, cost in self.costs.items()]
        return statistics.median_low(scaled)

    def ratio(self, one: C, other: C) -> tuple[float, float]:
        """Return how many times faster one is, and the standard error of that, both as logs."""
        logs = [
            math.log(found[one] / found[other])
            for found in self.rounds
            if one in found and other in found
        ]
        middle = statistics.median(logs)
        if len(logs) < FEWEST_ROUNDS:
            return middle, math.inf
        deviation = 1.4826 * statistics.median(abs(value - middle) for value in logs)
        return middle, 1.2533 * deviation / math.sqrt(len(logs))

    def ranked(self) -> list[C]:
        """Sort those that are left by speed, the fastest first.

        Each round is set off against its own level: all that are left took part in all rounds.
        """
        levels = [
            statistics.geometric_mean(found[one] for one in self.alive) for found in self.rounds
        ]

        def score(one: C) -> float:
            pairs = zip(self.rounds, levels, strict=True)
            return statistics.median(found[one] / level for found, level in pairs)

        return sorted(self.alive, key=score, reverse=True)


def race(
    candidates: Sequence[C],
    measure: Measure[C],
    *,
    budget_s: float,
    size_of: Callable[[C], float] = lambda _: 1.0,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> Result[C]:
    """Find the fastest candidate within a time.

    Args:
        candidates: In order of preference: of those as fast as the best within noise, the earliest
            wins. The first is what the others are compared with, and stays to the end.
        measure: See `Measure`. What it raises for want of memory drops a candidate.
        budget_s: Seconds by the clock for all of it. At least the first candidate is measured.
        size_of: How much a candidate computes at the least, to foresee how long it takes.
        clock: Seconds.
        seed: Of the orders.

    Raises:
        EmbeddingGenerationError: The first candidate cannot be measured.
    """
    running = _Race(list(candidates), measure, size_of, clock, random.Random(seed))
    end = clock() + budget_s
    n_stages = max(1, math.ceil(math.log2(max(len(candidates) / FINALISTS, 1))) + 1)
    for left in range(n_stages, 0, -1):
        stage_s = (end - clock()) / left
        slice_s = stage_s / (len(running.alive) * ROUNDS_PER_STAGE)
        slice_s = min(max(slice_s, SHORTEST_SLICE_S), LONGEST_SLICE_S)
        stage_end = clock() + stage_s
        if not running.rounds:  # it may take all the time there is: once is better than not
            running.run_first(end, slice_s)
        running.run_until(stage_end, slice_s)
        if left > 1:
            _halve(running)
    return _result(running, candidates)


def _halve(running: _Race[C]) -> None:
    n_kept = max(FINALISTS, math.ceil(len(running.alive) / 2))
    first, ranked = running.alive[0], running.ranked()
    kept = {first, *[one for one in ranked if one != first][: n_kept - 1]}
    running.alive = [one for one in running.alive if one in kept]


def _result(running: _Race[C], candidates: Sequence[C]) -> Result[C]:
    fastest = running.ranked()[0]

    def ties(one: C) -> bool:
        lead, error = running.ratio(fastest, one)
        return lead <= min(max(error, TIE), LARGEST_TIE)

    best = next(one for one in running.alive if ties(one))
    measured = [one for one in candidates if any(one in found for found in running.rounds)]
    return Result(
        best=best,
        rates={
            one: statistics.median(found[one] for found in running.rounds if one in found)
            for one in measured
        },
        gains={one: math.exp(running.ratio(one, candidates[0])[0]) for one in measured},
        dropped=running.dropped,
        n_rounds=sum(best in found for found in running.rounds),
        cost_s=running.costs[candidates[0]],
    )

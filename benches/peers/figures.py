"""Turns and vectors → speeds, ratios and fidelity."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benches.peers.peer import ONE_BY_ONE
from benches.peers.turns import Turn

MIN_FIDELITY = 0.9999
"""Mean cosine to F32 from which a file type counts as the same vectors, only faster."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Spread:
        """Take the middle and the ends."""
        found = list(figures)
        return cls(statistics.median(found), min(found), max(found))


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Cosines of a peer's vectors to those of the reference: all texts' mean, and the worst."""

    mean: float
    worst: float


@dataclass(frozen=True, slots=True)
class Row:
    """What one peer made of one work.

    Attributes:
        texts_per_s: Over the rounds.
        fidelity: None without a reference.
        ratio: How many times as fast the best of embellama was, round by round; None where there
            is no such best.
    """

    texts_per_s: Spread
    fidelity: Fidelity | None
    ratio: Spread | None


def compare(rows: NDArray[np.float32], reference: NDArray[np.float32]) -> Fidelity:
    """Compare rows of length 1, one by one.

    Raises:
        ValueError: They are not as many, or not as long.
    """
    if rows.shape != reference.shape:
        raise ValueError(f"the vectors are {rows.shape}, those of the reference {reference.shape}")
    cosines = (rows.astype(np.float64) * reference).sum(axis=1)
    return Fidelity(float(cosines.mean()), float(cosines.min()))


def seconds_by_round(turns: Iterable[Turn], work: str) -> dict[str, dict[int, float]]:
    """Sort the times of a work by peer and round: of all texts, or of one where they were alone."""
    found: dict[str, dict[int, float]] = {}
    for turn in turns:
        if turn.work == work:
            found.setdefault(turn.peer, {})[turn.round] = (
                turn.seconds if turn.p50_s is None else turn.p50_s
            )
    return found


def best_of(
    candidates: Iterable[str],
    seconds: Mapping[str, Mapping[int, float]],
    fidelity: Mapping[str, Fidelity],
    least: float = MIN_FIDELITY,
) -> str | None:
    """Name the fastest candidate whose vectors are close enough to the reference's."""
    faithful = [
        name
        for name in candidates
        if name in seconds and name in fidelity and fidelity[name].mean >= least
    ]
    return min(faithful, key=lambda name: statistics.median(seconds[name].values()), default=None)


def ratio_to(best: Mapping[int, float], peer: Mapping[int, float]) -> Spread | None:
    """Say how many times as fast as the peer the best was, in the rounds both had."""
    both = sorted(best.keys() & peer.keys())
    return Spread.of(peer[number] / best[number] for number in both) if both else None


def table(
    turns: Sequence[Turn],
    work: str,
    n_texts: int,
    candidates: Sequence[str],
    fidelity: Mapping[str, Fidelity],
    least: float = MIN_FIDELITY,
) -> tuple[str | None, dict[str, Row]]:
    """Give the best of the candidates for a work, and each peer's row."""
    seconds = seconds_by_round(turns, work)
    if work == ONE_BY_ONE:
        n_texts = 1
    best = best_of(candidates, seconds, fidelity, least)
    rows = {
        name: Row(
            Spread.of(n_texts / taken for taken in rounds.values()),
            fidelity.get(name),
            ratio_to(seconds[best], rounds) if best is not None else None,
        )
        for name, rounds in seconds.items()
    }
    return best, rows

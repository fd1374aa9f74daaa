"""What can be plotted against what: measures of quality, kinds of texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.bench.report.numbers import cosine, percent, score


@dataclass(frozen=True, slots=True)
class Quality:
    """A measure of how good a type's vectors are; more is better.

    Attributes:
        key: A name for identifiers.
        title: Its name for people.
        of: Its value for a type; None if it was not measured.
        write: How a value is written.
        to_reference: The words between its title and the reference's; None if it stands alone.
        in_nines: Whether values crowd below 1, so that their distance from 1 is what is drawn.
    """

    key: str
    title: str
    of: Callable[[TypeFindings], float | None]
    write: Callable[[float], str]
    to_reference: str | None = None
    in_nines: bool = False


QUALITIES = (
    Quality(
        "cosine",
        "mean cosine",
        lambda t: t.fidelity.cosine_mean,
        cosine,
        to_reference="to",
        in_nines=True,
    ),
    Quality("spearman", "Spearman", lambda t: t.spearman, score),
    Quality("ndcg", "nDCG@10", lambda t: t.ndcg_10, score),
    Quality(
        "overlap",
        "neighbour overlap",
        lambda t: t.fidelity.neighbour_overlap,
        percent,
        to_reference="with",
    ),
)

WORK = {"short": "short texts", "long": "long texts", "own": "your own texts"}
"""Kinds of texts, in the order they are shown; others come after."""


@dataclass(frozen=True, slots=True)
class Point:
    """A type's place in a plot of quality against speed.

    Attributes:
        file_type: Its name.
        speed: Texts a second.
        spread: The slowest and the fastest round.
        quality: In the measure's own unit.
        file_bytes: Size of the file.
    """

    file_type: str
    speed: float
    spread: tuple[float, float]
    quality: float
    file_bytes: int


def measured_qualities(findings: BenchFindings) -> list[Quality]:
    """Return the measures that at least one type has a value of."""
    return [q for q in QUALITIES if any(_finite(q.of(found)) for found in findings.types)]


def axis_title(quality: Quality, findings: BenchFindings) -> str:
    """Return a measure's name, with the reference's where it is against that."""
    if quality.to_reference is None:
        return quality.title
    return f"{quality.title} {quality.to_reference} {findings.reference_type}"


def measured_work(findings: BenchFindings) -> dict[str, str]:
    """Return the kinds of texts that were timed, with their names for people."""
    timed = {work for found in findings.types for work in found.speed}
    ordered = [*(w for w in WORK if w in timed), *sorted(timed - WORK.keys())]
    return {work: WORK.get(work, f"{work} texts") for work in ordered}


def points(findings: BenchFindings, quality: Quality, work: str) -> list[Point]:
    """Return the types that have both measures."""
    placed = []
    for found in findings.types:
        value, speed = quality.of(found), found.speed.get(work)
        if value is not None and isfinite(value) and speed and isfinite(speed.texts_per_s):
            slow, fast = speed.spread
            spread = (slow, fast) if isfinite(slow) and isfinite(fast) else (speed.texts_per_s,) * 2
            placed.append(
                Point(found.file_type, speed.texts_per_s, spread, value, found.file_bytes)
            )
    return placed


def pareto_front(placed: list[Point]) -> list[Point]:
    """Return the points that no other beats, from the best to the fastest.

    To beat is to be as good in both measures and better in one.
    """
    unbeaten = [point for point in placed if not any(_beats(other, point) for other in placed)]
    return sorted(unbeaten, key=lambda point: (-point.quality, point.speed))


def _beats(one: Point, other: Point) -> bool:
    no_worse = one.speed >= other.speed and one.quality >= other.quality
    return no_worse and (one.speed > other.speed or one.quality > other.quality)


def is_judged(findings: BenchFindings) -> bool:
    """Tell whether scores or relevance were given, which then decide what is good enough."""
    return any(found.spearman is not None or found.ndcg_10 is not None for found in findings.types)


def good_enough(findings: BenchFindings, quality: Quality) -> float | None:
    """Return the least value within the tolerance; None if this measure does not decide."""
    if quality.key == "overlap" or (quality.key == "cosine") == is_judged(findings):
        return None
    if quality.key == "cosine":
        return findings.tolerance
    of_reference = [
        quality.of(found) for found in findings.types if found.file_type == findings.reference_type
    ]
    value = of_reference[0] if of_reference else None
    return value - findings.tolerance if value is not None and isfinite(value) else None


def _finite(value: float | None) -> bool:
    return value is not None and isfinite(value)

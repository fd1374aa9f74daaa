"""The two scales of quality against speed, with room for circles at every edge."""

from __future__ import annotations

from math import ceil, floor

from embellama.bench.report.labels import Box
from embellama.bench.report.measures import Point, Quality
from embellama.bench.report.plots import (
    NINES_AT_ONE,
    Scale,
    Tick,
    nines,
    nines_ticks,
    padded,
    round_ticks,
)


def speed_scale(placed: list[Point], frame: Box, *, margin: float) -> tuple[Scale, list[Tick]]:
    """Return the scale from the slowest round of all to the fastest, and its ticks."""
    low, high = padded([v for p in placed for v in (p.speed, *p.spread)], share=0.02)
    scale = Scale(low, high, frame.left + margin, frame.right - margin)
    return scale, round_ticks(low, high)


def quality_scale(
    placed: list[Point], quality: Quality, frame: Box, *, margin: float
) -> tuple[Scale, list[Tick]]:
    """Return the scale upwards and its ticks: of nines if the measure crowds below 1."""
    start, end = frame.bottom - margin, frame.top + margin
    if quality.in_nines:
        found = [max(nines(point.quality), 0) for point in placed]
        first = min(floor(min(found)), NINES_AT_ONE - 1)
        last = max(ceil(max(found)), first + 1)
        return Scale(first, last, start, end), nines_ticks(first, last)
    low, high = padded([point.quality for point in placed], share=0.02)
    ticks = round_ticks(low, high, about=5)
    if quality.key == "overlap":
        ticks = [Tick(tick.value, f"{tick.value * 100:g} %") for tick in ticks]
    return Scale(low, high, start, end), ticks

"""What every plot is made of: a frame with axes, scales from values to pixels, colours of types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from embellama.bench.findings import BenchFindings
from embellama.bench.report.markup import Markup, join, tag

WIDE = 860
NARROW = 350
"""Widths of a plot in pixels: for a desk's screen and for a phone's. Text has its real size."""

N_COLOURS = 8
NINES_AT_ONE = 7
"""Where a cosine of 1 is drawn: float32 cannot tell 1 − 1e-7 from 1."""

CHARACTER_WIDTH = 7.6
"""Pixels of a character of a 12-pixel label in a wide font, so that others have room too."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A straight line from values to pixels.

    Attributes:
        low: The smallest value shown.
        high: The largest one, above ``low``.
        start: The pixel of ``low``.
        end: The pixel of ``high``.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return a value's pixel; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Tick:
    """A value that an axis names."""

    value: float
    label: str


def padded(values: Iterable[float], *, share: float = 0.08) -> tuple[float, float]:
    """Return a range around finite values with room at both ends, never of width 0.

    Raises:
        ValueError: No value is finite.
    """
    finite = [value for value in values if isfinite(value)]
    low, high = min(finite), max(finite)
    room = (high - low) * share or abs(low) * share or 1.0
    return low - room, high + room


def round_ticks(low: float, high: float, *, about: int = 6) -> list[Tick]:
    """Return ticks at multiples of 1, 2 or 5 times a power of ten, about as many as asked."""
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    decimals = max(0, -floor(log10(step) + 1e-9))
    numbers = range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
    return [Tick(number * step, f"{number * step + 0.0:,.{decimals}f}") for number in numbers]


def nines(cosine: float) -> float:
    """Return how many nines a cosine begins with: 0.99 has 2, and 1 has `NINES_AT_ONE`."""
    return -log10(max(1 - cosine, 10.0**-NINES_AT_ONE))


def nines_ticks(low: int, high: int) -> list[Tick]:
    """Return a tick for every power of ten of 1 − cosine, labelled with the cosine."""
    labels = {0: "0", NINES_AT_ONE: "1"}
    return [Tick(n, labels.get(n, "0." + "9" * n)) for n in range(low, high + 1)]


def without_crowding(ticks: Sequence[Tick], scale: Scale) -> list[Tick]:
    """Leave out labels of a horizontal axis that would touch; the last one always stays."""
    kept: list[Tick] = []
    for tick in reversed(ticks):
        room = (len(tick.label) + (len(kept[-1].label) if kept else 0)) / 2 * CHARACTER_WIDTH
        if not kept or abs(scale(kept[-1].value) - scale(tick.value)) >= room + 6:
            kept.append(tick)
    return kept[::-1]


def horizontal_axis(ticks: Sequence[Tick], scale: Scale, *, top: float, bottom: float) -> Markup:
    """Draw an axis below a plot, with a grid line up from every labelled tick."""
    return join(
        [
            mark
            for tick in without_crowding(ticks, scale)
            for mark in (
                line(scale(tick.value), top, scale(tick.value), bottom, class_="grid"),
                text(scale(tick.value), bottom + 16, tick.label, class_="tick middle"),
            )
        ]
    )


def vertical_axis(ticks: Sequence[Tick], scale: Scale, *, left: float, right: float) -> Markup:
    """Draw an axis at the left of a plot, with a grid line across from every tick."""
    return join(
        [
            mark
            for tick in ticks
            for mark in (
                line(left, scale(tick.value), right, scale(tick.value), class_="grid"),
                text(left - 6, scale(tick.value) + 4, tick.label, class_="tick end"),
            )
        ]
    )


def line(x1: float, y1: float, x2: float, y2: float, *, class_: str) -> Markup:
    """Draw a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, content: str, *, class_: str) -> Markup:
    """Write a text with its baseline at ``y``; the class says which end is at ``x``."""
    return tag("text", content, x=x, y=y, class_=class_)


def svg(width: float, height: float, *marks: Markup, label: str) -> Markup:
    """Put marks into a picture; screen readers get the label instead of them."""
    return tag(
        "svg",
        *marks,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_="narrow" if width <= NARROW else "wide",
    )


def colours(findings: BenchFindings) -> dict[str, str]:
    """Return the class that colours a type's marks, the same in every plot."""
    return {found.file_type: f"t{i % N_COLOURS}" for i, found in enumerate(findings.types)}

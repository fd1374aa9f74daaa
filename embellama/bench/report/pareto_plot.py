"""Quality against speed: a circle for every type, its area the size of the file."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

from embellama.bench.report.labels import Box, Circle, Place, place_labels
from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.measures import Point, Quality, pareto_front
from embellama.bench.report.numbers import rounded, size
from embellama.bench.report.plots import (
    CHARACTER_WIDTH,
    NARROW,
    horizontal_axis,
    line,
    nines,
    svg,
    text,
    vertical_axis,
)
from embellama.bench.report.scales import quality_scale, speed_scale

LEFT, TOP, RIGHT, BOTTOM = 66, 30, 12, 46
LABEL_HEIGHT, HALF_LINE = 16, 1.5
LEADER_FROM = 10.0
"""A label further away than this many pixels gets a line to its circle."""


def pareto_plot(
    placed: list[Point],
    quality: Quality,
    *,
    title: str,
    work: str,
    colours: dict[str, str],
    limit: float | None,
    width: int,
) -> Markup:
    """Draw the types, the front that none of them beats, and a label for each.

    Args:
        placed: The types, at least one.
        quality: What is drawn upwards.
        title: What the measure is called, and of what.
        work: What kind of texts the speed is of, in words.
        colours: The class of each type's colour.
        limit: The least quality that is good enough, if this measure decides.
        width: In pixels; labels are shorter in a narrow one.
    """
    drawing = _Drawing(placed, quality, colours, width)
    bar, taken, lines = drawing.limit(limit)
    told = (f"{p.file_type} {quality.write(p.quality)} at {rounded(p.speed)}" for p in placed)
    return svg(
        width,
        drawing.height,
        text(0, 14, f"↑ {title}", class_="axis"),
        text(width - RIGHT, drawing.height - 6, f"Texts a second, {work} →", class_="axis end"),
        drawing.axes(),
        bar,
        drawing.front(),
        drawing.circles(),
        drawing.labels(taken, lines),
        label=f"{title} against texts a second, {work}. " + "; ".join(told),
    )


class _Drawing:
    """Where everything goes, and the marks that say so."""

    def __init__(
        self, placed: list[Point], quality: Quality, colours: dict[str, str], width: int
    ) -> None:
        self.height, largest = (360, 15.0) if width <= NARROW else (440, 22.0)
        self._placed, self._quality, self._colours = placed, quality, colours
        self._narrow = width <= NARROW
        self._frame = Box(LEFT, TOP, width - RIGHT, self.height - BOTTOM)
        self._across, self._x_ticks = speed_scale(placed, self._frame, margin=largest + 4)
        self._up, self._y_ticks = quality_scale(placed, quality, self._frame, margin=largest + 4)
        self._front = pareto_front(placed)
        most = max(point.file_bytes for point in placed) or 1
        self._circles = [
            Circle(
                self._across(point.speed),
                self._y(point.quality),
                max(largest * sqrt(point.file_bytes / most), 3.0),
                len(" ".join(self._words(point))) * CHARACTER_WIDTH + 6,
                LABEL_HEIGHT,
            )
            for point in placed
        ]

    def _y(self, value: float) -> float:
        return self._up(nines(value) if self._quality.in_nines else value)

    def _words(self, point: Point) -> list[str]:
        """Write the type, and where there is room also the size that the area stands for."""
        return [point.file_type, *([] if self._narrow else [size(point.file_bytes)])]

    def axes(self) -> Markup:
        frame = self._frame
        return join(
            [
                vertical_axis(self._y_ticks, self._up, left=frame.left, right=frame.right),
                horizontal_axis(self._x_ticks, self._across, top=frame.top, bottom=frame.bottom),
            ]
        )

    def limit(self, value: float | None) -> tuple[Markup, list[Box], list[Box]]:
        """Draw from where on vectors are good enough; say what its label and its line take."""
        shown = value if value is None or not self._quality.in_nines else nines(value)
        if value is None or shown is None or not self._up.low < shown < self._up.high:
            return Markup(""), [], []
        frame, y, said = self._frame, self._y(value), "good enough above"
        room = Box(frame.left, y - 2, frame.left + len(said) * CHARACTER_WIDTH, y + LABEL_HEIGHT)
        bar = line(frame.left, y, frame.right, y, class_="limit")
        return (
            join([bar, text(frame.left + 4, y + 13, said, class_="tick")]),
            [room],
            [_around(frame.left, y, frame.right, y)],
        )

    def _corners(self) -> list[tuple[float, float]]:
        """Return where the front turns, from the left edge down to the lower one."""
        ends = [(self._across(point.speed), self._y(point.quality)) for point in self._front]
        corners = [(self._frame.left, ends[0][1])]
        for x, y in ends:
            corners += [(corners[-1][0], y), (x, y)]
        return [*corners, (corners[-1][0], self._frame.bottom)]

    def front(self) -> Markup:
        """Draw the steps of the front."""
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in self._corners())
        return tag("path", d=f"M{path}", class_="front")

    def _spreads(self) -> list[Box]:
        """Return the bars from the slowest round to the fastest, as thin boxes."""
        return [
            Box(
                self._across(p.spread[0]),
                c.y - HALF_LINE,
                self._across(p.spread[1]),
                c.y + HALF_LINE,
            )
            for p, c in zip(self._placed, self._circles, strict=True)
        ]

    def circles(self) -> Markup:
        """Draw the bars, and on them the circles, the largest at the bottom."""
        both = zip(self._placed, self._circles, strict=True)
        bars = [
            line(
                bar.left,
                circle.y,
                bar.right,
                circle.y,
                class_=f"spread {self._colours[point.file_type]}",
            )
            for bar, circle, point in zip(self._spreads(), self._circles, self._placed, strict=True)
        ]
        dots = [self._dot(*pair) for pair in sorted(both, key=lambda pair: -pair[1].radius)]
        return join([*bars, *dots])

    def _dot(self, point: Point, circle: Circle) -> Markup:
        slow, fast = point.spread
        told = (
            f"{point.file_type}: {rounded(point.speed)} texts/s "
            f"(rounds from {rounded(slow)} to {rounded(fast)}), {self._quality.title} "
            f"{self._quality.write(point.quality)}, file of {size(point.file_bytes)}"
        )
        return tag(
            "circle",
            tag("title", told),
            cx=circle.x,
            cy=circle.y,
            r=circle.radius,
            class_=f"dot {self._colours[point.file_type]}"
            + ("" if point in self._front else " beaten"),
        )

    def labels(self, taken: list[Box], lines: list[Box]) -> Markup:
        """Write the labels where they cover nothing."""
        steps = [
            _around(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            for (x1, y1), (x2, y2) in pairwise(self._corners())
        ]
        places = place_labels(
            self._circles, self._frame, taken=taken, lines=[*lines, *steps, *self._spreads()]
        )
        trios = zip(self._placed, self._circles, places, strict=True)
        return join([self._label(*trio) for trio in trios])

    def _label(self, point: Point, circle: Circle, place: Place) -> Markup:
        box = place.box
        name, *rest = self._words(point)
        written = tag(
            "text",
            tag("tspan", name, class_="name"),
            *(f" {word}" for word in rest),
            x=(box.left + box.right) / 2,
            y=box.bottom - 4,
            class_="label middle",
        )
        if place.distance <= LEADER_FROM:
            return written
        near_x = min(max(circle.x, box.left), box.right)
        near_y = min(max(circle.y, box.top), box.bottom)
        return join([line(circle.x, circle.y, near_x, near_y, class_="leader"), written])


def _around(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(x1 - HALF_LINE, y1 - HALF_LINE, x2 + HALF_LINE, y2 + HALF_LINE)

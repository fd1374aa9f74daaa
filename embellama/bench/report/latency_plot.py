"""How long a single text takes: every measured call, the middle half boxed, the median marked."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10

import numpy as np

from embellama.bench.findings import BenchFindings, Latency, TypeFindings
from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.numbers import milliseconds
from embellama.bench.report.plots import (
    Scale,
    Tick,
    colours,
    horizontal_axis,
    line,
    round_ticks,
    svg,
)
from embellama.bench.report.row_plots import TOP, Rows

ROW_HEIGHT = 42
MOST_DRAWN = 160
"""Calls drawn for a type; of more, evenly spaced ones in order of duration, both ends included."""

LOG_FROM = 8.0
"""How many times the shortest duration the longest has to be for the axis to be logarithmic."""


def latency_plot(findings: BenchFindings, *, width: int) -> Markup:
    """Draw a row for every type; nothing if no duration was measured."""
    timed = [found for found in findings.types if _durations(found.latency)]
    if not timed:
        return Markup("")
    rows = Rows(width, len(timed), ROW_HEIGHT)
    axis = _Axis([d for found in timed for d in _durations(found.latency)], rows)
    colour = colours(findings)
    return svg(
        width,
        rows.height,
        horizontal_axis(axis.ticks, axis.scale, top=TOP, bottom=rows.bottom),
        rows.titles(
            f"Milliseconds for a single text{axis.remark} →",
            figures="median" if rows.narrow else "median · p99, ms",
        ),
        join([_row(found, i, rows, axis, colour) for i, found in enumerate(timed)]),
        label="Milliseconds for a single text. "
        + "; ".join(f"{t.file_type} {_figures(t.latency, narrow=False)}" for t in timed),
    )


class _Axis:
    """Milliseconds to pixels: from 0 on if they are alike, else logarithmic."""

    def __init__(self, durations_s: Sequence[float], rows: Rows) -> None:
        low, high = min(durations_s) * 1000, max(durations_s) * 1000
        self.logarithmic = low > 0 and high / low > LOG_FROM
        if self.logarithmic:
            bottom, top = log10(low) - 0.04, log10(high) + 0.04
            self.ticks = [
                Tick(log10(factor * 10.0**power), f"{factor * 10.0**power:g}")
                for power in range(int(bottom) - 1, int(top) + 2)
                for factor in (1, 2, 5)
                if bottom <= log10(factor * 10.0**power) <= top
            ]
        else:
            bottom, top = 0.0, high * 1.03 or 1.0
            self.ticks = round_ticks(bottom, top)
        self.scale = Scale(bottom, top, rows.left, rows.right - 14)
        self.remark = ", logarithmic" if self.logarithmic else ""

    def __call__(self, seconds: float) -> float:
        value = seconds * 1000
        return self.scale(log10(value) if self.logarithmic else value)


def _durations(latency: Latency) -> list[float]:
    found = [*latency.samples, latency.p50, latency.p95, latency.p99]
    return [d for d in found if isfinite(d) and d > 0]


def _figures(latency: Latency, *, narrow: bool) -> str:
    median = milliseconds(latency.p50)
    return median if narrow else f"{median} · {milliseconds(latency.p99)}"


def _row(found: TypeFindings, row: int, rows: Rows, axis: _Axis, colour: dict[str, str]) -> Markup:
    latency, shade = found.latency, colour[found.file_type]
    middle = rows.top_of(row) + ROW_HEIGHT / 2
    durations = sorted(d for d in latency.samples if isfinite(d) and d > 0)
    told = (
        f"{found.file_type}: half of the texts within {milliseconds(latency.p50)} ms, 95 % within "
        f"{milliseconds(latency.p95)} ms, 99 % within {milliseconds(latency.p99)} ms; "
        f"{len(durations)} calls"
    )
    marks = [_strip(durations, middle, axis, shade)]
    if durations:
        p5, p25, p75, p95 = (
            axis(float(q)) for q in np.quantile(durations, (0.05, 0.25, 0.75, 0.95))
        )
        marks += [
            line(p5, middle, p95, middle, class_=f"whisker {shade}"),
            tag(
                "rect",
                x=p25,
                y=middle - 9,
                width=max(p75 - p25, 1),
                height=18,
                rx=2,
                class_=f"box {shade}",
            ),
        ]
    if isfinite(latency.p50) and latency.p50 > 0:
        at = axis(latency.p50)
        marks.append(line(at, middle - 12, at, middle + 12, class_="median"))
    names = rows.names(row, found.file_type, shade, figures=_figures(latency, narrow=rows.narrow))
    return tag("g", tag("title", told), *marks, names)


def _strip(durations: list[float], middle: float, axis: _Axis, shade: str) -> Markup:
    """Draw a dot a call; a fixed sequence lifts and lowers them so that they can be told apart."""
    n = len(durations)
    drawn = (
        durations
        if n <= MOST_DRAWN
        else [durations[i * (n - 1) // (MOST_DRAWN - 1)] for i in range(MOST_DRAWN)]
    )
    # multiples of the golden ratio, whole part dropped, never bunch
    lifts = [(i * 0.618034 % 1 - 0.5) * 26 for i in range(len(drawn))]
    dots = "".join(
        f"M{axis(d):.1f} {middle + lift:.1f}h0" for d, lift in zip(drawn, lifts, strict=True)
    )
    return tag("path", d=dots, class_=f"strip {shade}") if dots else Markup("")

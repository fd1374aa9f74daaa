"""How far each text's vector moved: a histogram of cosines for every type but the reference."""

from __future__ import annotations

from math import floor, isfinite

import numpy as np

from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.numbers import cosine, percent
from embellama.bench.report.plots import (
    NINES_AT_ONE,
    Scale,
    colours,
    horizontal_axis,
    line,
    nines,
    nines_ticks,
    svg,
)
from embellama.bench.report.row_plots import TOP, Rows

ROW_HEIGHT = 50
BAR_ROOM = 38
BINS_A_NINE = {True: 4, False: 8}
"""Bars to each power of ten of 1 − cosine, by whether the plot is narrow."""


def cosine_plot(findings: BenchFindings, *, width: int) -> Markup:
    """Draw a row for every type but the reference; nothing if there is no other."""
    compared = [
        found
        for found in findings.types
        if found.file_type != findings.reference_type and _finite(found)
    ]
    if not compared:
        return Markup("")
    rows = Rows(width, len(compared), ROW_HEIGHT)
    lowest = min(nines(value) for found in compared for value in _finite(found))
    low = min(max(floor(lowest), 0), NINES_AT_ONE - 1)
    scale = Scale(low, NINES_AT_ONE, rows.left, rows.right - 14)
    edges = np.linspace(low, NINES_AT_ONE, (NINES_AT_ONE - low) * BINS_A_NINE[rows.narrow] + 1)
    shares = [_shares(found, edges) for found in compared]
    tallest = float(max(share.max() for share in shares))
    colour = colours(findings)
    return svg(
        width,
        rows.height,
        horizontal_axis(nines_ticks(low, NINES_AT_ONE), scale, top=TOP, bottom=rows.bottom),
        rows.titles(
            f"Cosine to {findings.reference_type} →",
            figures="worst" if rows.narrow else "mean · worst",
        ),
        join(
            [
                _row(found, share / tallest, edges, scale, rows, i, colour[found.file_type])
                for i, (found, share) in enumerate(zip(compared, shares, strict=True))
            ]
        ),
        label=f"Cosine to {findings.reference_type} of every text. "
        + "; ".join(f"{t.file_type} {_figures(t, narrow=False)}" for t in compared),
    )


def _finite(found: TypeFindings) -> list[float]:
    return [value for value in found.fidelity.cosines if isfinite(value)]


def _shares(found: TypeFindings, edges: np.ndarray) -> np.ndarray:
    values = np.array([nines(value) for value in _finite(found)])
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / len(values)


def _figures(found: TypeFindings, *, narrow: bool) -> str:
    worst = cosine(found.fidelity.cosine_worst)
    return worst if narrow else f"{cosine(found.fidelity.cosine_mean)} · {worst}"


def _row(
    found: TypeFindings,
    heights: np.ndarray,
    edges: np.ndarray,
    scale: Scale,
    rows: Rows,
    row: int,
    shade: str,
) -> Markup:
    floor_y = rows.top_of(row) + ROW_HEIGHT - 6
    bars = "".join(
        f"M{scale(left):.1f} {floor_y:.1f}V{floor_y - height * BAR_ROOM:.1f}"
        f"H{scale(right) - 1:.1f}V{floor_y:.1f}z"
        for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True)
        if height > 0
    )
    fidelity = found.fidelity
    told = (
        f"{found.file_type}: mean cosine {cosine(fidelity.cosine_mean)}, worst "
        f"{cosine(fidelity.cosine_worst)}; {percent(fidelity.neighbour_overlap)} of the ten "
        "nearest neighbours are the same"
    )
    marks = [
        line(rows.left, floor_y, rows.right - 14, floor_y, class_="floor"),
        tag("path", d=bars, class_=f"bars {shade}"),
    ]
    if isfinite(fidelity.cosine_worst):
        at = scale(nines(fidelity.cosine_worst))
        marks.append(line(at, floor_y + 4, at, floor_y - 12, class_="worst"))
    names = rows.names(row, found.file_type, shade, figures=_figures(found, narrow=rows.narrow))
    return tag("g", tag("title", told), *marks, names)

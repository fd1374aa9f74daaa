"""The table of all types: a row each, the best of a column in bold, failures at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite

from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.measures import measured_work
from embellama.bench.report.numbers import (
    MISSING,
    cosine,
    milliseconds,
    percent,
    rounded,
    score,
    size,
)
from embellama.bench.report.plots import colours


@dataclass(frozen=True, slots=True)
class Column:
    """A figure that every type has.

    Attributes:
        group: The heading it shares with its neighbours.
        title: Its own heading, with the unit.
        of: Its value; None if it was not measured.
        write: How a value is written.
        more_is_better: Which end of the column is in bold.
        against_reference: Whether the reference type itself cannot be the best.
        remark: A second, smaller line.
    """

    group: str
    title: str
    of: Callable[[TypeFindings], float | None]
    write: Callable[[float], str]
    more_is_better: bool = True
    against_reference: bool = False
    remark: Callable[[TypeFindings], str] = lambda found: ""


def figures_table(findings: BenchFindings) -> Markup:
    """Write the table; a column that no type has a value for is left out."""
    columns = [
        column
        for column in (*_fixed_columns(), *_speed_columns(findings), *_quality_columns())
        if any(_known(column.of(found)) for found in findings.types)
    ]
    best = [_best(column, findings) for column in columns]
    colour = colours(findings)
    rows = [
        _row(found, columns, best, colour[found.file_type], i)
        for i, found in enumerate(findings.types)
    ]
    failed = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", f"failed: {reason}", colspan=str(max(len(columns), 1)), class_="reason"),
        )
        for name, reason in findings.failed.items()
    ]
    return tag(
        "table",
        tag("thead", *_headings(columns)),
        tag("tbody", *rows),
        tag("tbody", *failed, class_="failed") if failed else Markup(""),
        class_="figures sortable",
    )


def _fixed_columns() -> Sequence[Column]:
    return (
        Column("Size", "file", lambda t: t.file_bytes, size, more_is_better=False),
        Column("Size", "memory", lambda t: t.rss_bytes, size, more_is_better=False),
        Column("Size", "load, s", lambda t: t.load_s, rounded, more_is_better=False),
    )


def _speed_columns(findings: BenchFindings) -> Sequence[Column]:
    def texts_per_s(work: str, title: str) -> Column:
        return Column(
            "Texts a second",
            title,
            lambda t: t.speed[work].texts_per_s if work in t.speed else None,
            rounded,
            remark=lambda t: (
                f"{rounded(t.speed[work].tokens_per_s)} tokens/s" if work in t.speed else ""
            ),
        )

    single = "One text alone, ms"
    return (
        *(texts_per_s(work, title) for work, title in measured_work(findings).items()),
        Column(single, "p50", lambda t: t.latency.p50, milliseconds, more_is_better=False),
        Column(single, "p95", lambda t: t.latency.p95, milliseconds, more_is_better=False),
        Column(single, "p99", lambda t: t.latency.p99, milliseconds, more_is_better=False),
    )


def _quality_columns() -> Sequence[Column]:
    same, own = "Same vectors as the reference?", "On your own task"
    return (
        Column(
            same, "cosine, mean", lambda t: t.fidelity.cosine_mean, cosine, against_reference=True
        ),
        Column(
            same, "cosine, worst", lambda t: t.fidelity.cosine_worst, cosine, against_reference=True
        ),
        Column(
            same,
            "neighbour overlap",
            lambda t: t.fidelity.neighbour_overlap,
            percent,
            against_reference=True,
        ),
        Column(own, "Spearman", lambda t: t.spearman, score),
        Column(own, "nDCG@10", lambda t: t.ndcg_10, score),
    )


def _known(value: float | None) -> bool:
    return value is not None and isfinite(value)


def _best(column: Column, findings: BenchFindings) -> str | None:
    """Return the best value as it is written, so that what looks alike is bold alike."""
    values = [
        value
        for found in findings.types
        if not (column.against_reference and found.file_type == findings.reference_type)
        and (value := column.of(found)) is not None
        and isfinite(value)
    ]
    if len(findings.types) < 2 or not values:
        return None
    return column.write(max(values) if column.more_is_better else min(values))


def _headings(columns: Sequence[Column]) -> list[Markup]:
    groups = [(name, len(list(members))) for name, members in groupby(columns, lambda c: c.group)]
    return [
        tag(
            "tr",
            tag("td"),
            *(tag("th", name, scope="colgroup", colspan=str(n)) for name, n in groups),
        ),
        tag(
            "tr",
            tag("th", "type", scope="col", class_="sort"),
            *(
                tag(
                    "th",
                    column.title,
                    scope="col",
                    class_="sort",
                    data_first="descending" if column.more_is_better else "ascending",
                )
                for column in columns
            ),
        ),
    ]


def _row(
    found: TypeFindings,
    columns: Sequence[Column],
    best: Sequence[str | None],
    colour: str,
    position: int,
) -> Markup:
    name = tag("span", class_=f"swatch {colour}")
    return tag(
        "tr",
        tag("th", name, found.file_type, scope="row", data_sort=str(position)),
        *(_cell(found, column, winner) for column, winner in zip(columns, best, strict=True)),
    )


def _cell(found: TypeFindings, column: Column, winner: str | None) -> Markup:
    value = column.of(found)
    if value is None or not isfinite(value):
        return tag("td", MISSING)
    written, remark = column.write(value), column.remark(found)
    return tag(
        "td",
        tag("strong", written) if written == winner else join([written]),
        tag("small", remark) if remark else Markup(""),
        data_sort=repr(float(value)),
    )

"""Quality against speed for every pair of measures; which one shows is chosen without a script."""

from __future__ import annotations

from embellama.bench.findings import BenchFindings
from embellama.bench.report.markup import Markup, tag
from embellama.bench.report.measures import (
    axis_title,
    good_enough,
    is_judged,
    measured_qualities,
    measured_work,
    points,
)
from embellama.bench.report.pareto_plot import pareto_plot
from embellama.bench.report.plots import NARROW, WIDE, colours


def pareto_section(findings: BenchFindings) -> Markup:
    """Write the plots and the buttons that choose among them; nothing for a type alone."""
    pairs = _pairs(findings)
    if not pairs:
        return Markup("")
    first_quality, first_work = _first(findings)
    choices = tag(
        "div",
        _buttons(
            "quality", "Quality:", [q.title for q in measured_qualities(findings)], first_quality
        ),
        _buttons("work", "Speed:", list(measured_work(findings).values()), first_work),
        class_="choices",
    )
    return tag(
        "section",
        tag("h2", "Quality against speed", id="pareto"),
        tag(
            "p",
            "Each circle is a file type. Further right is faster, further up is closer to the "
            "vectors of the reference or better on your task, and a smaller circle is a smaller "
            "file. Best is top right.",
        ),
        choices,
        tag(
            "figure",
            *(_plots(findings, quality, work) for quality, work in pairs),
            tag(
                "figcaption",
                "The dashed line is the Pareto front: no other type is better than one on it "
                "without being slower. Pale circles are beaten by another type in both. The bar "
                "through a circle goes from the slowest to the fastest round; types whose bars "
                "overlap are about equally fast.",
            ),
        ),
        class_="pareto",
        aria_labelledby="pareto",
    )


def choice_rules(findings: BenchFindings) -> str:
    """Return the style rules that show the plot whose two buttons are on."""
    selectors = [
        f".pareto:has(#quality-{q}:checked):has(#work-{w}:checked) .q{q}.w{w}"
        for q, w in _pairs(findings)
    ]
    return ",\n".join(selectors) + " { display: block; }\n" if selectors else ""


def _pairs(findings: BenchFindings) -> list[tuple[int, int]]:
    if len(findings.types) < 2:
        return []
    n_qualities, n_works = len(measured_qualities(findings)), len(measured_work(findings))
    return [(q, w) for q in range(n_qualities) for w in range(n_works)]


def _first(findings: BenchFindings) -> tuple[int, int]:
    """Return what shows at first: the measure and the texts closest to the user's own task."""
    keys = [quality.key for quality in measured_qualities(findings)]
    judged = [i for i, key in enumerate(keys) if key in ("spearman", "ndcg")]
    works = list(measured_work(findings))
    quality = judged[-1] if judged and is_judged(findings) else 0
    return quality, works.index("own") if "own" in works else 0


def _buttons(name: str, legend: str, titles: list[str], chosen: int) -> Markup:
    buttons = [
        tag(
            "label",
            tag(
                "input",
                type="radio",
                name=name,
                id=f"{name}-{i}",
                checked="" if i == chosen else None,
            ),
            f" {title}",
        )
        for i, title in enumerate(titles)
    ]
    return tag("fieldset", tag("legend", legend), *buttons)


def _plots(findings: BenchFindings, quality_index: int, work_index: int) -> Markup:
    quality = measured_qualities(findings)[quality_index]
    key, title = list(measured_work(findings).items())[work_index]
    placed = points(findings, quality, key)
    content = [
        pareto_plot(
            placed,
            quality,
            title=axis_title(quality, findings),
            work=title,
            colours=colours(findings),
            limit=good_enough(findings, quality),
            width=width,
        )
        for width in (WIDE, NARROW)
        if placed
    ] or [tag("p", f"No type has both {quality.title} and a speed for {title}.")]
    return tag("div", *content, class_=f"pick q{quality_index} w{work_index}")

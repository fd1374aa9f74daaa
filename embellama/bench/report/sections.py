"""The page's parts in words, and the plots that need nothing to be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from embellama.bench.findings import BenchFindings, Goal, TypeFindings
from embellama.bench.report.cosine_plot import cosine_plot
from embellama.bench.report.glossary import GLOSSARY
from embellama.bench.report.latency_plot import latency_plot
from embellama.bench.report.markup import Markup, join, tag
from embellama.bench.report.measures import is_judged, measured_qualities, measured_work
from embellama.bench.report.plots import NARROW, WIDE, colours
from embellama.bench.report.worst import worst_table

GOALS: dict[Goal, str] = {
    "smallest": "Smallest file that is good enough",
    "fastest": "Fastest that is good enough",
    "best": "Best vectors",
}


def lead(findings: BenchFindings) -> Markup:
    """Say what was compared, to someone who never heard of it."""
    n_types = len(findings.types)
    types = "1 file type" if n_types == 1 else f"{n_types} file types"
    done = (
        f"{types} of it embedded the same texts on one machine. This page shows "
        "how large and how fast each is, and how close its vectors stay to those of "
        f"{findings.reference_type}, the most exact one here."
        if n_types
        else "None of those asked for could be measured; the reasons are below."
    )
    return join(
        [
            "A text-embedding model turns a text into a list of numbers, its vector. The model ",
            tag("strong", findings.model),
            " can be stored in several file types, which keep its weights with more or fewer "
            f"bits. {done}",
        ]
    )


def measured(findings: BenchFindings) -> Markup:
    """Say when it was, and on which texts."""
    try:
        when = datetime.fromisoformat(findings.created).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:  # made by hand; as it is then
        when = findings.created
    return join([f"{_texts(findings)}. Measured {when}."])


def _texts(findings: BenchFindings) -> str:
    texts = "1 text" if findings.n_texts == 1 else f"{findings.n_texts:,} texts"
    return f"{texts}: {findings.texts_from}"


def recommendations(findings: BenchFindings) -> Markup:
    """Write a card for every goal that some type meets, reason first among the rest."""
    if not findings.recommendations:
        return tag(
            "p",
            "Nothing can be recommended: no type was measured."
            if not findings.types
            else "Nothing can be recommended: no type met a goal.",
        )
    by_type = {found.file_type: found for found in findings.types}
    colour = colours(findings)
    cards = [
        tag(
            "div",
            tag("h3", GOALS.get(advice.goal, advice.goal)),
            tag(
                "p",
                tag("span", class_=f"swatch {colour.get(advice.file_type, '')}"),
                advice.file_type,
                class_="choice",
            ),
            tag("p", advice.reason[:1].upper() + advice.reason[1:]),
            _how_to_load(by_type.get(advice.file_type)),
            class_="card",
        )
        for advice in findings.recommendations
    ]
    return join([tag("div", *cards, class_="cards"), tag("p", *_tolerance(findings))])


def _how_to_load(found: TypeFindings | None) -> Markup:
    if found is None:
        return Markup("")
    return tag("p", "Load it as ", tag("code", found.reference), class_="muted")


def _tolerance(findings: BenchFindings) -> tuple[str, ...]:
    limit = tag("strong", f"{findings.tolerance:g}")
    if not is_judged(findings):
        return "Good enough means here: a mean cosine of at least ", limit, "."
    names = [q.title for q in measured_qualities(findings) if q.key in ("spearman", "ndcg")]
    return (
        f"Good enough means here: {' and '.join(names)} no more than ",
        limit,
        f" below {findings.reference_type}'s.",
    )


def table_note(findings: BenchFindings) -> Markup:
    """Say how to read the table."""
    if not findings.types:
        return join(["No type could be measured."])
    if len(findings.types) == 1:
        return join(["Only one type was measured."])
    return join(
        [
            "Bold is the best of a column; in those about the reference's vectors, the best of the "
            "other types. ",
            tag("span", "Click a heading to sort.", class_="scripted"),
        ]
    )


def latency(findings: BenchFindings) -> Markup:
    """Write the section of single texts; nothing if none was timed."""
    plots = [latency_plot(findings, width=width) for width in (WIDE, NARROW)]
    if not any(plots):
        return Markup("")
    return _section(
        "single",
        "How long a single text takes",
        "Texts given one at a time, as a search box would. A dot is a call.",
        plots,
        "The box holds the middle half of the calls, the thin line all but the fastest and the "
        "slowest 5 %, and the thick mark is the median (p50).",
    )


def cosines(findings: BenchFindings) -> Markup:
    """Write the section of cosines; nothing if there is no type but the reference."""
    plots = [cosine_plot(findings, width=width) for width in (WIDE, NARROW)]
    if not any(plots):
        return Markup("")
    return _section(
        "cosines",
        "How far the vectors moved",
        f"Every text has a cosine: its vector of a type against that of "
        f"{findings.reference_type}. Taller bars hold more texts; bars further right are closer "
        "to the same vector.",
        plots,
        "Cosines crowd below 1, so each step of the axis is ten times closer to 1 than the one "
        "before; all from 0.9999999 on are drawn at 1. The short mark is the worst text.",
    )


def worst(findings: BenchFindings) -> Markup:
    """Write the section of worst texts; nothing if no type was measured."""
    if not findings.types:
        return Markup("")
    return tag(
        "section",
        tag("h2", "What each file holds, and where it does worst", id="worst"),
        tag(
            "div",
            worst_table(findings),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_labelledby="worst",
        ),
        aria_labelledby="worst",
    )


def machine(findings: BenchFindings) -> Markup:
    """List the machine, and what the figures rest on."""
    rows = {**findings.machine, "texts": _texts(findings)}
    if findings.types:
        kind = "loss of at most" if is_judged(findings) else "mean cosine of at least"
        rows["speed measured on"] = ", ".join(measured_work(findings).values()) or "nothing"
        rows["compared with"] = findings.reference_type
        rows["good enough"] = f"{kind} {findings.tolerance:g}"
    return _definitions(rows)


def glossary(findings: BenchFindings) -> Markup:
    """Explain the words; measures that were not taken need none."""
    unused = {"Spearman", "nDCG@10"} - {q.title for q in measured_qualities(findings)}
    words = {word: meaning for word, meaning in GLOSSARY.items() if word not in unused}
    return _definitions(words)


def _definitions(rows: Mapping[str, str]) -> Markup:
    return tag(
        "dl", *(join([tag("dt", name), tag("dd", meaning)]) for name, meaning in rows.items())
    )


def _section(name: str, title: str, intro: str, plots: list[Markup], caption: str) -> Markup:
    return tag(
        "section",
        tag("h2", title, id=name),
        tag("p", intro),
        tag("figure", *plots, tag("figcaption", caption)),
        aria_labelledby=name,
    )

"""The table of what each file holds and which text it treats worst."""

from __future__ import annotations

from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.bench.report.markup import Markup, tag
from embellama.bench.report.numbers import MISSING, cosine
from embellama.bench.report.plots import colours

LONG_TEXT, BEGINNING = 240, 160
"""Characters from which a text is folded, and how many are then shown."""


def worst_table(findings: BenchFindings) -> Markup:
    """Write for every type what its file holds, and the text whose vector moved most."""
    head = ("type", "tensors in the file", "cosine", "the text whose vector moved most")
    colour = colours(findings)
    rows = [
        tag(
            "tr",
            tag(
                "th",
                tag("span", class_=f"swatch {colour[found.file_type]}"),
                found.file_type,
                scope="row",
            ),
            tag("td", _tensors(found)),
            *_worst(found, is_reference=found.file_type == findings.reference_type),
        )
        for found in findings.types
    ]
    return tag(
        "table",
        tag("thead", tag("tr", *(tag("th", title, scope="col") for title in head))),
        tag("tbody", *rows),
        class_="worst-texts",
    )


def _tensors(found: TypeFindings) -> str:
    ordered = sorted(found.tensor_types.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def _worst(found: TypeFindings, *, is_reference: bool) -> list[Markup]:
    if is_reference:
        return [tag("td", MISSING), tag("td", "what the others are compared with", class_="muted")]
    worst = found.fidelity.worst_text
    full = tag("p", worst, dir="auto")
    shown = (
        full
        if len(worst) <= LONG_TEXT
        else tag("details", tag("summary", f"{worst[:BEGINNING]}…", dir="auto"), full)
    )
    return [tag("td", cosine(found.fidelity.cosine_worst)), tag("td", shown, class_="text")]

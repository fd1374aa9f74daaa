"""What ``embellama bench`` found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.cli.tables import in_units, tensor_summary

_GOALS = {"smallest": "Smallest", "fastest": "Fastest", "best": "Best"}


def rendered(findings: BenchFindings) -> Iterator[RenderableType]:
    """Yield what to print, from what was measured to what to do."""
    yield _head(findings)
    yield _sizes(findings)
    yield _speeds(findings)
    yield _plain(f"Texts and tokens a second; milliseconds for a single text, {_kind(findings)}.\n")
    yield _fidelity(findings)
    yield _plain(
        f"Against {findings.reference_type}: cosines of the vectors; how many of the 10 nearest "
        "texts are the same.\n"
    )
    for file_type, reason in findings.failed.items():
        yield _plain(f"{file_type}: not measured. {reason}", style="yellow")
    if findings.failed:
        yield Text()
    for advice in findings.recommendations:
        line = Text(f"{_GOALS[advice.goal]}: ", style="bold")
        line.append(advice.file_type, style="bold green")
        yield line.append_text(Text(f". {_safe(advice.reason)}", style="not bold"))


def _head(findings: BenchFindings) -> Text:
    machine = findings.machine
    where = ", ".join(
        f"{name} {machine[name]}"
        for name in ("CPU", "cores", "llama-cpp-python")
        if name in machine
    )
    computed = f"computed by {machine['backend']}\n" if "backend" in machine else ""
    return _plain(
        f"{findings.model} on {where}\n{computed}"
        f"{findings.n_texts:,} texts: {findings.texts_from}\n"
    )


def _sizes(findings: BenchFindings) -> Table:
    table = _table("Size", "TYPE", ["FILE", "RSS", "LOAD"], ["TENSORS"])
    for one in findings.types:
        _add(
            table,
            [
                one.file_type,
                in_units(one.file_bytes),
                in_units(one.rss_bytes),
                f"{one.load_s * 1000:,.0f} ms",
                tensor_summary(one.tensor_types),
            ],
        )
    return table


def _speeds(findings: BenchFindings) -> Table:
    works = list(findings.types[0].speed) if findings.types else []
    heads = [head for work in works for head in (f"{work.upper()}/s", "tok/s")]
    table = _table("Speed", "TYPE", [*heads, "P50", "P95", "P99"])
    for one in findings.types:
        rates = [
            _rate(rate)
            for work in works
            for rate in (one.speed[work].texts_per_s, one.speed[work].tokens_per_s)
        ]
        latency = one.latency
        times = [f"{1000 * s:.2f}" for s in (latency.p50, latency.p95, latency.p99)]
        _add(table, [one.file_type, *rates, *times])
    return table


def _fidelity(findings: BenchFindings) -> Table:
    judged = [
        (head, name)
        for head, name in (("SPEARMAN", "spearman"), ("nDCG@10", "ndcg_10"))
        if any(getattr(one, name) is not None for one in findings.types)
    ]
    heads = ["COSINE", "WORST", "TOP-10", *(head for head, _ in judged)]
    table = _table("Fidelity", "TYPE", heads, ["WORST TEXT"])
    for one in findings.types:
        near = one.fidelity
        is_reference = one.file_type == findings.reference_type
        _add(
            table,
            [
                one.file_type,
                f"{near.cosine_mean:.5f}",
                f"{near.cosine_worst:.5f}",
                f"{near.neighbour_overlap:.1%}",
                *(_score(one, name) for _, name in judged),
                "(the reference)" if is_reference else " ".join(near.worst_text.split()),
            ],
        )
    return table


def _kind(findings: BenchFindings) -> str:
    own = any("own" in one.speed for one in findings.types)
    return "one of yours" if own else "a short one"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _score(one: TypeFindings, name: str) -> str:
    value = getattr(one, name)
    return "-" if value is None else f"{value:.4f}"


def _table(title: str, first: str, numbers: Iterable[str], words: Sequence[str] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column(first, style="bold", no_wrap=True)
    for head in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    for head in words:
        table.add_column(head)  # may be narrowed, so that the numbers are not
    return table


def _add(table: Table, cells: Iterable[str]) -> None:
    # a cell that is too long ends in an ellipsis, and does not become several lines
    table.add_row(*(Text(_safe(cell), no_wrap=True, overflow="ellipsis") for cell in cells))


def _plain(text: str, *, style: str = "") -> Text:
    """Make a text in which brackets are brackets: names and texts are not ours."""
    return Text(_safe(text), style=style)


def _safe(text: str) -> str:
    """Leave out what would steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)

"""``embellama bench``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embellama.cli.settings import Settings, is_terminal, say_step, settings_of
from embellama.errors import InvalidInputError

if TYPE_CHECKING:
    from embellama.bench.advisor import BenchPlan
    from embellama.bench.candidates import Report
    from embellama.bench.findings import BenchFindings


def bench_command(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="What to compare the file types of, e.g. minilm.")
    ],
    types: Annotated[
        str,
        typer.Option(
            metavar="TYPES",
            help="all (F32,BF16,F16,Q8_0,Q6_K,Q5_K_M,Q4_K_M,Q4_0), or some, parted by commas.",
        ),
    ] = "all",
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Your own texts, one a line; with --queries, id<TAB>text."
        ),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pairs with scores: a table with the columns score, sentence1, sentence2.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Queries to search the texts for, id<TAB>text a line."),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What answers them, in TREC's form: query 0 text relevance."
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            show_default=False,
            help="What still counts as good: the loss of Spearman and nDCG (0.005), or without "
            "pairs and queries the mean cosine (0.999).",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer texts and rounds: a first look.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write everything as JSON.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="OUT.html", help="Also write a page with plots, for anybody."),
    ] = None,
) -> None:
    """Compare a model's file types, and say which to take.

    Makes or fetches each type and measures it on this machine: size, memory, load time, speed,
    and how near its vectors are to those of the most precise type, on your texts or on built-in
    ones. The types take turns, so keep the machine quiet; it takes a minute or several.
    """
    settings = settings_of(ctx)
    _check_writable(report)
    plan = _plan(settings, model, types, texts, pairs, queries, qrels, tolerance, quick=quick)
    from embellama.bench.advisor import compare_types  # noqa: PLC0415

    with _progress() as told:
        findings = compare_types(plan, report=told)
    if as_json:
        typer.echo(json.dumps(findings.to_dict(), ensure_ascii=False, indent=1))
    else:
        _show(findings)
    if report is not None:
        _write_page(findings, report)
        say_step(f"{report} written")


def _plan(
    settings: Settings,
    model: str,
    types: str,
    texts: Path | None,
    pairs: Path | None,
    queries: Path | None,
    qrels: Path | None,
    tolerance: float | None,
    *,
    quick: bool,
) -> BenchPlan:
    """Check all that was given, and read the files, before anything is made or measured."""
    from embellama.bench.advisor import BenchPlan  # noqa: PLC0415
    from embellama.bench.candidates import parse_types  # noqa: PLC0415
    from embellama.bench.data import gather  # noqa: PLC0415
    from embellama.bench.measuring import FULL, QUICK  # noqa: PLC0415

    effort = QUICK if quick else FULL
    config = settings.model_config(model)
    return BenchPlan(
        model=config.model_path or model,
        name=model,
        file_types=parse_types(types),
        data=gather(
            texts=texts,
            pairs=pairs,
            queries=queries,
            qrels=qrels,
            max_texts=effort.max_texts,
            max_pairs=effort.max_pairs,
        ),
        tolerance=tolerance,
        effort=effort,
        config=config,
        engine=settings.engine_config(),
    )


def _check_writable(report: Path | None) -> None:
    """Refuse a page that could not be written, before minutes are spent on it."""
    if report is None:
        return
    if report.is_dir():
        raise InvalidInputError(f"--report {str(report)!r} is a folder; name a file in it")
    folder = report.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InvalidInputError(
            f"--report {str(report)!r}: the folder {str(folder)!r} is not there or cannot be "
            "written; make it, or name another"
        )


def _write_page(findings: BenchFindings, target: Path) -> None:
    from embellama.bench.report.page import render_page  # noqa: PLC0415
    from embellama.files import replacing  # noqa: PLC0415

    with replacing(target) as path:
        path.write_text(render_page(findings), encoding="utf-8")


def _show(findings: BenchFindings) -> None:
    from rich.console import Console  # noqa: PLC0415

    from embellama.cli.bench_tables import rendered  # noqa: PLC0415

    console = Console(width=None if is_terminal(sys.stdout) else 120, highlight=False)
    for part in rendered(findings):
        console.print(part)


@contextmanager
def _progress() -> Iterator[Report]:
    """Give what is told of each step: a bar for a person, otherwise each new step as a line."""
    if not is_terminal(sys.stderr):
        told: set[str] = set()

        def tell(what: str, done: int, total: int) -> None:
            if what not in told:
                told.add(what)
                say_step(what)

        yield tell
        return
    from rich import progress  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield advance

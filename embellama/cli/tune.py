"""``embellama tune``: the fastest settings of a model here, measured and kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from embellama.cli.models import JsonOption
from embellama.cli.settings import resolve, say_step, settings_of
from embellama.cli.tables import show_fields, show_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embellama.bench.tune_findings import TuneFindings
    from embellama.bench.tune_search import VariantFindings
    from embellama.bench.tune_speed import Variant

WORTH_TELLING = 1.02
"""Other types that gain less are not offered."""


def tune_command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to tune, e.g. minilm.")],
    budget_s: Annotated[
        float,
        typer.Option(
            "--budget-s", metavar="S", help="Seconds of measuring; making files comes on top."
        ),
    ] = 60.0,
    allow_types: Annotated[
        bool,
        typer.Option(
            "--allow-types",
            help="Also keep another file type or attention if it is faster; vectors change.",
        ),
    ] = False,
    least_cosine: Annotated[
        float,
        typer.Option(
            "--least-cosine",
            metavar="C",
            help="How near the vectors have to stay to the model's own with --allow-types.",
        ),
    ] = 0.999,
    as_json: JsonOption = False,
) -> None:
    """Find and keep the fastest settings.

    Micro-batch sizes and ways to share out the cores are tried for many short texts, for many
    passages and for a single text. Other file types and kinds of attention are measured too, and
    told: they change the vectors, so they stay your choice. Leave the machine alone meanwhile.
    """
    from embellama.agreements import FOLDER  # noqa: PLC0415
    from embellama.backends import ChosenBackend  # noqa: PLC0415
    from embellama.bench.tune import Place, TuneOptions, tune_model  # noqa: PLC0415
    from embellama.hub.store import cache_directory  # noqa: PLC0415

    settings = settings_of(ctx)
    options = TuneOptions(budget_s, allow_types, least_cosine)
    options.check()
    engine = settings.engine_config()
    findings = tune_model(
        resolve(settings, model),
        settings.model_config(model),
        options,
        backend=ChosenBackend(folder=cache_directory(engine.cache_path) / FOLDER),
        place=Place(engine.cache_path, engine.offline),
        on_step=say_step,
    )
    if as_json:
        typer.echo(json.dumps(findings.to_dict(), ensure_ascii=False, indent=1))
    else:
        _show(findings)


def _show(findings: TuneFindings) -> None:
    works = findings.found.works
    show_fields(
        [
            ("model", f"{findings.model}:{findings.file_type}"),
            ("CPU", findings.cpu),
            ("backend", findings.backend),
        ]
    )
    typer.echo()
    show_table(
        ("WORK", "DEFAULT", "TEXTS/S", "BEST", "TEXTS/S", "GAIN"),
        [
            (
                work,
                str(one.default),
                f"{one.measured.default_texts_per_s:.1f}",
                str(one.best) if one.best != one.default else "the default",
                f"{one.measured.best_texts_per_s:.1f}",
                _percent(one.measured.gain),
            )
            for work, one in works.items()
        ],
        right="TEXTS/S GAIN",
    )
    typer.echo("(contexts × threads of each; single: one text after the other)")
    for work, one in works.items():
        if one.dropped:
            typer.echo(f"{work}: {len(one.dropped)} layouts were not measured (--json says why)")
    _show_variants(findings)
    typer.echo()
    for line in _kept(findings):
        typer.echo(line)


def _show_variants(findings: TuneFindings) -> None:
    measured = [one for one in findings.found.variants if one.failed is None]
    failed = [one for one in findings.found.variants if one.failed is not None]
    typer.echo()
    if measured:
        typer.echo("what would change the vectors, with the same layouts:")
        show_table(
            ("WHAT", "SHORT", "LONG", "SINGLE", "WORST COSINE"),
            [_variant_row(one) for one in sorted(measured, key=lambda one: -one.gain)],
            right="SHORT LONG SINGLE WORST COSINE",
        )
    for one in failed:
        typer.echo(f"{name_of(one.variant)}: not measured ({one.failed})")
    for line in _offers(findings, measured):
        typer.echo(line)


def _variant_row(one: VariantFindings) -> tuple[str, ...]:
    cosine = "unknown" if one.least_cosine is None else f"{one.least_cosine:.5f}"
    gains = [one.gains.get(work) for work in ("short", "long", "single")]
    return (name_of(one.variant), *("?" if g is None else _percent(g) for g in gains), cosine)


def name_of(variant: Variant) -> str:
    """Name a variant by what differs from the model as it is."""
    if variant.file_type is not None:
        return variant.file_type
    return {True: "fused attention", False: "attention not fused", "auto": "as it is"}[
        variant.flash_attn
    ]


def _offers(findings: TuneFindings, measured: list[VariantFindings]) -> Iterator[str]:
    """Say how to get a type that is faster, where it is not taken already."""
    faster = [
        one for one in measured if one.variant.file_type is not None and one.gain >= WORTH_TELLING
    ]
    for one in sorted(faster, key=lambda one: -one.gain):
        kind = one.variant.file_type
        if one.variant == findings.found.variant or kind is None:
            continue
        if kind in findings.takeable:
            how = f"load {findings.model}:{kind}, or tune with --allow-types"
        else:
            how = f"make it with `embellama quantize` from F32, F16 or BF16, as {kind}"
        yield f"{kind} is {_percent(one.gain)} faster over all and changes the vectors; {how}"


def _kept(findings: TuneFindings) -> Iterator[str]:
    tuning = findings.tuning
    if tuning.file_type is not None:
        yield f"{findings.model} is loaded as {tuning.file_type} from now on: its vectors change"
    if tuning.flash_attn != "auto":
        way = name_of(findings.found.variant)
        yield f"{findings.model} is loaded with {way} from now on: its vectors change"
    gained = [work for work, one in findings.found.works.items() if one.measured.gain != 1.0]
    what = ", ".join(gained) if gained else "the defaults, which nothing beat"
    yield f"kept for this CPU, {findings.backend} and model: {what}"
    yield f'in {findings.path} (remove it, or load with tuning="off", to have the defaults)'


def _percent(gain: float) -> str:
    return f"{(gain - 1) * 100:+.1f} %"

"""``embellama doctor``: whether this machine and a model are as they should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from embellama.cli.errors import EXIT_FAILED
from embellama.cli.findings import Finding
from embellama.cli.settings import settings_of

_WIDTH = 4


def doctor_command(
    ctx: typer.Context,
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A model to examine too, e.g. minilm.")
    ] = None,
) -> None:
    """Examine this machine, its backends, and a model.

    Each line says ok, note (it works and could be better) or FAIL. The exit status is 1 if
    anything failed.
    """
    from embellama.cli.machine_check import check_machine  # noqa: PLC0415
    from embellama.cli.model_check import check_model  # noqa: PLC0415

    settings = settings_of(ctx)
    failed = _show("this machine", check_machine(settings))
    if model is None:
        typer.echo("\nName a model to examine it too: `embellama doctor minilm`.")
    else:
        typer.echo()
        failed |= _show(f"model {model}", check_model(settings, model))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _show(title: str, findings: Iterable[Finding]) -> bool:
    """Write the findings as they come; True if one is a failure."""
    typer.echo(title)
    failed = False
    for finding in findings:
        typer.echo(f"  {finding.level:<{_WIDTH}}  {finding.text}")
        failed |= finding.level == "FAIL"
    return failed

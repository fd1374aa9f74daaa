"""``embellama cache``: what is stored, and its removal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from embellama.cli.models import JsonOption
from embellama.cli.settings import settings_of
from embellama.cli.tables import in_units, show_table

_KINDS = {
    "converted": "converted here",
    "hub": "from the hub",
    "set_aside": "corrupt, set aside",
    "unfinished": "unfinished",
}

cache_app = typer.Typer(
    help="List, size and remove stored models.", invoke_without_command=True, rich_markup_mode=None
)


@cache_app.callback()
def _cache(ctx: typer.Context) -> None:
    """List, size and remove stored models."""
    if ctx.invoked_subcommand is None:
        list_command(ctx)


@cache_app.command("list")
def list_command(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the stored models; the same as `cache` alone."""
    from embellama.hub.store import list_stored  # noqa: PLC0415

    files = list_stored(settings_of(ctx).engine_config().cache_path)
    if as_json:
        rows = [
            {
                "name": file.name,
                "kind": file.kind,
                "size_bytes": file.size_bytes,
                "modified": file.modified.isoformat(),
                "path": str(file.path),
            }
            for file in files
        ]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif not files:
        typer.echo("nothing is stored; `embellama pull minilm` fetches a first model", err=True)
    else:
        rows_shown = [
            (file.name, in_units(file.size_bytes), f"{file.modified:%Y-%m-%d}", _KINDS[file.kind])
            for file in files
        ]
        total = in_units(sum(file.size_bytes for file in files))
        show_table(("NAME", "SIZE", "DATE", "KIND"), rows_shown, right="SIZE")
        typer.echo(f"{len(files)} file{'s' * (len(files) != 1)}, {total}")


@cache_app.command("remove")
def remove_command(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names as listed, or names of the catalogue."),
    ] = None,
    remove_all: Annotated[
        bool, typer.Option("--all", help="Remove every file that was converted here.")
    ] = False,
    hub: Annotated[
        bool,
        typer.Option(
            "--hub", help="With --all: the GGUFs in the hub's cache too, which others may share."
        ),
    ] = False,
) -> None:
    """Remove stored models."""
    from embellama.hub.store import remove_stored  # noqa: PLC0415

    if bool(names) == remove_all:
        raise typer.BadParameter("name what to remove, or give --all", param_hint="NAME")
    if hub and not remove_all:
        raise typer.BadParameter("goes with --all", param_hint="--hub")
    cache_path = settings_of(ctx).engine_config().cache_path
    if remove_all:
        freed = remove_stored(cache_path=cache_path, hub=hub)
    else:
        freed = sum(remove_stored(name, cache_path=cache_path) for name in names or ())
    typer.echo(f"{in_units(freed)} freed")


@cache_app.command("path")
def path_command(ctx: typer.Context) -> None:
    """Write the directory where converted models are kept."""
    from embellama.hub.store import cache_directory  # noqa: PLC0415

    typer.echo(str(cache_directory(settings_of(ctx).engine_config().cache_path)))

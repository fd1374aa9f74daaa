"""``embellama models`` and ``embellama pull``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from embellama.cli.errors import EXIT_FAILED, say
from embellama.cli.settings import resolve, settings_of
from embellama.cli.tables import in_units, show_table
from embellama.errors import EmbellamaError

if TYPE_CHECKING:
    from embellama.hub.catalog import CatalogEntry
    from embellama.hub.store import StoredFile

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


def models_command(ctx: typer.Context, as_json: JsonOption = False) -> None:
    """List the catalogue, and what of it is stored."""
    from embellama.hub.catalog import load_catalog  # noqa: PLC0415
    from embellama.hub.store import list_stored  # noqa: PLC0415

    stored = list_stored(settings_of(ctx).engine_config().cache_path)
    entries = load_catalog().values()
    if as_json:
        rows = [_row(entry) | {"stored": stored_types(entry, stored)} for entry in entries]
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    show_table(
        ("NAME", "DIMS", "CONTEXT", "POOLING", "LICENCE", "STORED"),
        [
            (
                entry.name,
                str(entry.n_embd),
                str(entry.n_ctx),
                entry.pooling_type,
                entry.license,
                " ".join(stored_types(entry, stored)) or "-",
            )
            for entry in entries
        ],
        right="DIMS CONTEXT",
    )


def _row(entry: CatalogEntry) -> dict[str, object]:
    row = asdict(entry)
    for name in ("prompts", "gguf_file_types"):
        row[name] = dict(row[name])
    return row


def stored_types(entry: CatalogEntry, stored: Iterable[StoredFile]) -> list[str]:
    """Name the file types of a model that are stored."""
    found = set()
    for file in stored:
        name, _, file_type = file.name.partition(":")
        if file.kind == "converted" and name == entry.name:
            found.add(file_type)
        elif file.kind == "hub" and file.name.startswith(f"hf:{entry.gguf_repository}@"):
            found.add(_type_of(entry, file.path.name))
    return sorted(found)


def _type_of(entry: CatalogEntry, file_name: str) -> str:
    for file_type in entry.gguf_file_types:
        known = entry.gguf_file(file_type) or ""
        if known.rpartition("/")[2].lower() == file_name.lower():
            return file_type
    return file_name


def pull_command(
    ctx: typer.Context,
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="What to fetch, e.g. minilm.")
    ],
) -> None:
    """Fetch models ahead of time, and write their paths.

    They are converted where that is needed. One that fails does not keep the others from being
    fetched.
    """
    settings = settings_of(ctx)
    n_failed = 0
    for model in models:
        try:
            path = resolve(settings, model).path
        except EmbellamaError as exc:
            if len(models) == 1:
                raise
            say(f"{model}: {exc}")
            n_failed += 1
            continue
        typer.echo(f"{path}")
        say_size = in_units(path.stat().st_size)
        typer.echo(f"{model} is stored ({say_size})", err=True)
    if n_failed:
        raise typer.Exit(EXIT_FAILED)

"""``embellama convert`` and ``embellama quantize``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from embellama.cli.errors import say
from embellama.cli.settings import is_terminal, settings_of
from embellama.cli.tables import in_units, tensor_summary


def convert_command(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A sentence-transformers or transformers folder.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.")],
    file_type: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="F32, F16, BF16 or Q8_0.")
    ] = "F16",
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the model calls itself.")
    ] = None,
) -> None:
    """Make a GGUF of a model of the BERT family.

    MiniLM, bge, e5, gte and their kind. The file appears complete or not at all. For other
    families use llama.cpp's own converter.
    """
    settings_of(ctx)
    from embellama.hub.convert import convert_folder  # noqa: PLC0415

    with _bar() as progress:
        report = convert_folder(
            folder, target, file_type=file_type.upper(), name=name, progress=progress
        )
    for warning in report.warnings:
        say(f"warning: {warning}")
    _show(report.path, report.file_type, report.tensor_types, report.size_bytes, report.duration_s)


def quantize_command(
    ctx: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN.gguf", help="A GGUF in F32, F16 or BF16.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.")],
    file_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="llama.cpp's name of it: Q8_0, Q4_K_M…")
    ],
    requantize: Annotated[
        bool,
        typer.Option("--requantize", help="Allow a source that is quantized already, at a loss."),
    ] = False,
) -> None:
    """Write a GGUF in another file type.

    The types that its tensors really got are shown. Rows that the blocks of a type do not divide
    get another: at width 384, Q4_K_M is mostly Q5_0.
    """
    from embellama.hub.quantize import quantize_file  # noqa: PLC0415

    report = quantize_file(
        source,
        target,
        file_type,
        n_threads=settings_of(ctx).n_threads,
        requantize=requantize,
    )
    _show(report.path, report.file_type, report.tensor_types, report.size_bytes, report.duration_s)


def _show(
    path: Path, file_type: str, tensor_types: Mapping[str, int], size_bytes: int, duration_s: float
) -> None:
    typer.echo(f"{path}: {file_type}, {in_units(size_bytes)}, in {duration_s:.1f} s")
    typer.echo(f"tensors: {tensor_summary(tensor_types)}")


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Give what is told (done, total) in bytes; drawn for a person, and only if it takes long."""
    from tqdm import tqdm  # noqa: PLC0415

    hidden = not is_terminal(sys.stderr)
    with tqdm(unit="B", unit_scale=True, disable=hidden, delay=1.0, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance

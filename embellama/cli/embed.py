"""``embellama embed``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embellama.cli.output import VectorFormat, check_destination, open_output, write_vectors
from embellama.cli.settings import is_terminal, loaded, settings_of
from embellama.cli.texts import Texts, open_texts
from embellama.errors import InvalidInputError

if TYPE_CHECKING:
    from embellama.engine import EmbeddingEngine
    from embellama.types import FloatArray

EMBED_HELP = """Embed texts: one vector for each, in the order of the texts.

\b
json   one TEXT: an array of numbers; otherwise an array of such arrays
jsonl  an array of numbers on each line
csv    numbers separated by commas on each line, no heading
npy    a NumPy file, float32 (n_texts, n_embd); not to a terminal

Numbers have the digits that a float32 needs. Output begins before the input ends, in blocks of
512 texts, and memory stays bounded. A TEXT that begins with a dash goes behind a `--`."""

FileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="Read the texts from a file, one a line."),
]
SkipBlankOption = Annotated[
    bool, typer.Option("--skip-blank", help="Leave blank lines out instead of refusing them.")
]


def embed_command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to embed with, e.g. minilm.")],
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="What to embed; the lines of standard input if none is given."
        ),
    ] = None,
    file: FileOption = None,
    output_format: Annotated[
        VectorFormat, typer.Option("--format", help="How to write the vectors.")
    ] = VectorFormat.JSON,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write to a file, which appears when complete."
        ),
    ] = None,
    skip_blank: SkipBlankOption = False,
) -> None:
    """Embed texts: one vector for each, in the order of the texts."""
    settings = settings_of(ctx)
    check_destination(output, output_format)
    with (
        open_texts(text, file, skip_blank=skip_blank) as texts,
        loaded(settings, model) as (engine, info),
        open_output(output) as out,
    ):
        is_single = text is not None and len(text) == 1
        with embedded(engine, info.name, texts, show_bar=_bar_has_room(output)) as vectors:
            write_vectors(out, vectors, output_format, n_embd=info.n_embd, flat=is_single)


@contextmanager
def embedded(
    engine: EmbeddingEngine, model: str, texts: Texts, *, show_bar: bool = False
) -> Iterator[Iterator[FloatArray]]:
    """Give the vectors of the texts; complaints name the texts as the user counts them."""
    from tqdm import tqdm  # noqa: PLC0415

    vectors = engine.embed_stream(model, texts)
    bar = tqdm(
        vectors,
        total=texts.total,
        unit=" texts",
        disable=not show_bar,
        delay=1.0,
        leave=False,
    )
    try:
        # closed at once: an iterator left standing holds the model, and the engine waits for it
        with closing(vectors), bar:
            yield iter(bar)
    except InvalidInputError as exc:
        raise texts.explained(exc) from exc


def _bar_has_room(output: Path | None) -> bool:
    """Tell whether somebody watches standard error and nothing else is written there."""
    return is_terminal(sys.stderr) and (output is not None or not is_terminal(sys.stdout))

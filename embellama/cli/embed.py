"""``embellama embed``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from embellama.cli.embedding import embedded
from embellama.cli.output import VectorFormat, check_destination, open_output, write_vectors
from embellama.cli.settings import is_terminal, loaded, settings_of
from embellama.cli.texts import open_texts
from embellama.cli.vector_options import (
    CacheOption,
    CalibrationOption,
    DimensionsOption,
    ForceDimensionsOption,
    KindOption,
    MaxTokensOption,
    NormalizationOption,
    OverflowChoice,
    OverflowOption,
    PrecisionChoice,
    PrecisionOption,
    PromptNameOption,
    PromptOption,
    SideChoice,
    TruncateSideOption,
    VectorOptions,
    fitted,
    input_options,
    output_options,
)

EMBED_HELP = """Embed texts: one vector for each, in the order of the texts.

\b
json   one TEXT: an array of numbers; otherwise an array of such arrays
jsonl  an array of numbers on each line
csv    numbers separated by commas on each line, no heading
npy    a NumPy file, (n_texts, n_columns) of the precision's type; not to a terminal

Numbers have the digits that their type needs; of binary and ubinary, each holds eight components.
Output begins before the input ends, in blocks of up to 512 texts, and memory stays bounded. What
--overflow truncate cuts is told on standard error. A TEXT that begins with a dash goes behind a
`--`."""

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
    kind: KindOption = None,
    prompt: PromptOption = None,
    prompt_name: PromptNameOption = None,
    overflow: OverflowOption = OverflowChoice.ERROR,
    truncate_side: TruncateSideOption = SideChoice.RIGHT,
    max_tokens: MaxTokensOption = None,
    dimensions: DimensionsOption = None,
    force_dimensions: ForceDimensionsOption = False,
    normalization: NormalizationOption = None,
    precision: PrecisionOption = PrecisionChoice.FLOAT32,
    calibration: CalibrationOption = None,
    cache: CacheOption = None,
) -> None:
    """Embed texts: one vector for each, in the order of the texts."""
    settings = settings_of(ctx)
    check_destination(output, output_format)
    options: VectorOptions = {
        **input_options(kind, prompt, prompt_name, overflow, truncate_side, max_tokens),
        **output_options(normalization, precision, calibration),
        "dimensions": dimensions,
        "force_dimensions": force_dimensions,
    }
    is_single = text is not None and len(text) == 1
    with (
        open_texts(text, file, skip_blank=skip_blank) as texts,
        loaded(settings, model, cache=cache) as (engine, info),
    ):
        options = fitted(options, info)
        # of no text: refuses what does not fit the model, and knows the type and the columns
        none_yet = engine.embed_batch(info.name, [], **options)
        with (
            open_output(output) as out,
            embedded(engine, info.name, texts, options, show_bar=_bar_has_room(output)) as vectors,
        ):
            write_vectors(out, vectors, output_format, none_yet=none_yet, flat=is_single)


def _bar_has_room(output: Path | None) -> bool:
    """Tell whether somebody watches standard error and nothing else is written there."""
    return is_terminal(sys.stderr) and (output is not None or not is_terminal(sys.stdout))

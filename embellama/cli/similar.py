"""``embellama similar``."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from embellama.cli.embed import FileOption, SkipBlankOption
from embellama.cli.embedding import embedded
from embellama.cli.errors import say
from embellama.cli.settings import loaded, settings_of
from embellama.cli.texts import Texts, open_texts
from embellama.cli.vector_options import (
    CacheOption,
    DimensionsOption,
    ForceDimensionsOption,
    KindOption,
    MaxTokensOption,
    OverflowChoice,
    OverflowOption,
    PromptNameOption,
    PromptOption,
    SideChoice,
    TruncateSideOption,
    VectorOptions,
    fitted,
    input_options,
)
from embellama.errors import InvalidInputError

if TYPE_CHECKING:
    from embellama.engine import EmbeddingEngine
    from embellama.types import FloatArray


class ListFormat(StrEnum):
    """How a list is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Match:
    """A line and how near it is to the query.

    Attributes:
        score: How near: the cosine of two vectors, or what a cross-encoder says.
        line: Its number, from 1.
        text: The line.
    """

    score: float
    line: int
    text: str


def similar_command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to embed with, e.g. minilm.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What to look for.")],
    file: FileOption = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="How many lines to show.")] = 5,
    output_format: Annotated[
        ListFormat, typer.Option("--format", help="How to write them.")
    ] = ListFormat.TEXT,
    skip_blank: SkipBlankOption = False,
    kind: KindOption = None,
    prompt: PromptOption = None,
    prompt_name: PromptNameOption = None,
    overflow: OverflowOption = OverflowChoice.ERROR,
    truncate_side: TruncateSideOption = SideChoice.RIGHT,
    max_tokens: MaxTokensOption = None,
    dimensions: DimensionsOption = None,
    force_dimensions: ForceDimensionsOption = False,
    cache: CacheOption = None,
) -> None:
    """Show the lines nearest in meaning to a query.

    The lines are those of a file or of standard input. Each comes with the cosine of the two
    vectors and its number, the nearest first. Where the model has prompts, QUERY gets the query's
    and the lines the document's; --kind, --prompt and --prompt-name choose one for both.
    """
    settings = settings_of(ctx)
    if not query.strip():
        raise InvalidInputError("QUERY is blank; say what to look for")
    options: VectorOptions = {
        **input_options(kind, prompt, prompt_name, overflow, truncate_side, max_tokens),
        "dimensions": dimensions,
        "force_dimensions": force_dimensions,
    }
    with (
        open_texts(None, file, skip_blank=skip_blank) as texts,
        loaded(settings, model, cache=cache) as (engine, info),
    ):
        options = fitted(options, info) if kind is not None else options
        unsaid = kind is None and prompt is None and prompt_name is None
        has_roles = unsaid and bool(info.prompts)
        of_query: VectorOptions = {**options, "kind": "query"} if has_roles else options
        of_lines: VectorOptions = {**options, "kind": "document"} if has_roles else options
        wanted = _query_vector(engine, info.name, query, of_query)
        with embedded(engine, info.name, texts, of_lines) as vectors:
            matches = heapq.nlargest(
                top, _matches(wanted, vectors, texts), key=lambda match: (match.score, -match.line)
            )
    show_matches(matches, as_json=output_format is ListFormat.JSON)


def show_matches(matches: Sequence[Match], *, as_json: bool) -> None:
    """Write a list, the nearest first."""
    if as_json:
        typer.echo(json.dumps([asdict(match) for match in matches], ensure_ascii=False, indent=1))
        return
    width = max((len(str(match.line)) for match in matches), default=0)
    for match in matches:
        typer.echo(f"{match.score:7.4f}  {match.line:>{width}}  {match.text}")


def _query_vector(
    engine: EmbeddingEngine, model: str, query: str, options: VectorOptions
) -> FloatArray:
    try:
        done = engine.embed_detailed(model, [query], **options)
    except InvalidInputError as exc:
        raise InvalidInputError(f"QUERY cannot be embedded: {exc}") from exc
    (report,) = done.texts
    if report.truncated:
        say(f"warning: QUERY cut, {report.n_dropped} tokens dropped")
    vector: FloatArray = done.vectors[0]
    return vector


def _matches(wanted: FloatArray, vectors: Iterable[FloatArray], texts: Texts) -> Iterator[Match]:
    for index, vector in enumerate(vectors):
        number, text = texts.numbered(index)
        yield Match(_cosine(wanted, vector), number, text)


def _cosine(a: FloatArray, b: FloatArray) -> float:
    import numpy as np  # noqa: PLC0415

    return round(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))), 6)

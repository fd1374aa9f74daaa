"""``embellama rerank``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from embellama.cli.embed import FileOption, SkipBlankOption
from embellama.cli.embedding import Cuts, located
from embellama.cli.models import JsonOption
from embellama.cli.settings import loaded, settings_of
from embellama.cli.similar import Match, show_matches
from embellama.cli.texts import open_texts
from embellama.errors import EmbellamaError, InvalidInputError


class PairOverflowChoice(StrEnum):
    """What happens to a text over the limit."""

    ERROR = "error"
    TRUNCATE = "truncate"


def rerank_command(
    ctx: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A cross-encoder, e.g. ms-marco-minilm-l6-v2.")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What is asked.")],
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="What may answer it; the lines of standard input if none is given."
        ),
    ] = None,
    file: FileOption = None,
    top: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How many to show; all if not given.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Show the model's logits, not scores from 0 to 1.")
    ] = False,
    overflow: Annotated[
        PairOverflowChoice,
        typer.Option(
            help="A text over the model's limit together with QUERY: refuse it, or cut it."
        ),
    ] = PairOverflowChoice.ERROR,
    as_json: JsonOption = False,
    skip_blank: SkipBlankOption = False,
) -> None:
    """Order texts by how well they answer a query.

    A cross-encoder reads each with the query. Each comes with its score and its number, the best
    first.
    """
    settings = settings_of(ctx)
    if not query.strip():
        raise InvalidInputError("QUERY is blank; say what is asked")
    cuts = Cuts()
    with (
        open_texts(text, file, skip_blank=skip_blank) as texts,
        loaded(settings, model) as (engine, info),
    ):
        documents = texts.all()
        try:
            results = engine.rerank(
                info.name, query, documents, normalize=not raw, overflow=overflow.value
            )
        except EmbellamaError as exc:
            raise located(exc, texts, 0, len(documents)) from exc
        for result in sorted(results, key=lambda result: result.index):
            cuts.note(result.n_dropped, texts)
        cuts.tell(texts)
        matches = [
            Match(round(result.score, 6), *texts.numbered(result.index)) for result in results[:top]
        ]
    show_matches(matches, as_json=as_json)

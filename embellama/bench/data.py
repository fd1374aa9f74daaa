"""What a comparison is made on: texts, pairs with scores, queries with judged documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embellama.bench.reading import (
    Pairs,
    Relevance,
    read_pairs,
    read_relevance,
    read_texts,
)
from embellama.bench.texts import long_texts, short_texts
from embellama.errors import InvalidInputError

_BUILT_IN_SHORT = 200
_BUILT_IN_LONG = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchData:
    """What vectors are computed of, beside the built-in texts that speed is measured on.

    Attributes:
        texts: What the fidelity is measured on, no two alike.
        texts_from: Where they came from, in words.
        own: Whether they are the user's.
        pairs: Pairs of sentences with scores.
        relevance: Queries with judged documents.
    """

    texts: tuple[str, ...]
    texts_from: str
    own: bool
    pairs: Pairs | None = None
    relevance: Relevance | None = None


def gather(
    *,
    texts: Path | None = None,
    pairs: Path | None = None,
    queries: Path | None = None,
    qrels: Path | None = None,
    max_texts: int,
    max_pairs: int | None = None,
) -> BenchData:
    """Read the user's files, or take built-in texts where there are none.

    Pairs without texts are texts too. Of more texts than allowed, evenly spaced ones are taken.

    Args:
        texts: One text a line; with ``queries``, ``id<TAB>text``.
        pairs: A table with the columns score, sentence1 and sentence2.
        queries: ``id<TAB>text`` a line.
        qrels: ``query 0 document judgement`` a line.
        max_texts: How many texts the fidelity is measured on.
        max_pairs: How many pairs are scored; all if None.

    Raises:
        InvalidInputError: A file cannot be read or used, or one is missing that another needs.
    """
    if (queries is None) != (qrels is None):
        given, missing = ("--qrels", "--queries") if queries is None else ("--queries", "--qrels")
        raise InvalidInputError(f"{given} needs {missing}: judgements belong to queries")
    if queries is not None and texts is None:
        raise InvalidInputError(
            "--queries needs --texts with the documents, one `id<TAB>text` a line"
        )
    scored = None if pairs is None else read_pairs(pairs)
    relevance = None
    found: Sequence[str]
    if texts is not None and queries is not None and qrels is not None:
        relevance = read_relevance(texts, queries, qrels)
        found, origin = relevance.documents, f"documents of {texts.name}"
    elif texts is not None:
        found, origin = read_texts(texts), f"texts of {texts.name}"
    elif scored is not None and pairs is not None:
        found, origin = scored.sentences, f"sentences of the pairs in {pairs.name}"
    else:
        found = [*short_texts(_BUILT_IN_SHORT), *long_texts(_BUILT_IN_LONG)]
        origin = "texts built into embellama, because none were given"
    distinct = list(dict.fromkeys(found))
    chosen = evenly_spaced(distinct, max_texts)
    note = "" if len(chosen) == len(distinct) else f"{len(chosen):,} of {len(distinct):,} "
    if scored is not None and max_pairs is not None and len(scored.scores) > max_pairs:
        origin += f"; Spearman of {max_pairs} of {len(scored.scores):,} pairs"
        scored = scored.thinned(max_pairs)
    return BenchData(
        texts=tuple(chosen),
        texts_from=note + origin,
        own=texts is not None or pairs is not None,
        pairs=scored,
        relevance=relevance,
    )


def evenly_spaced(items: Sequence[str], count: int) -> list[str]:
    """Return so many of the items, spread over them all; all if there are no more."""
    n = len(items)
    return list(items) if n <= count else [items[i * n // count] for i in range(count)]

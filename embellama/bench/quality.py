"""What the vectors of each type are worth: beside those of the reference, and on judged data."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embellama.bench.data import BenchData
from embellama.bench.findings import Fidelity
from embellama.bench.measuring import Embedder
from embellama.bench.reading import Pairs, Relevance
from embellama.bench.scores import NEIGHBOURS, cosines, ndcg, neighbours, overlap, spearman
from embellama.errors import InvalidInputError
from embellama.similarity.search import top_k
from embellama.types import FloatArray, Kind

_SHOWN = 60
"""Characters of a text that a message quotes."""


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """What one type made of the data.

    Attributes:
        vectors: float32 (n_texts, n_embd), of the texts.
        spearman: Against the pairs' scores.
        ndcg_10: Of the queries.
    """

    vectors: FloatArray
    spearman: float | None
    ndcg_10: float | None


def judge(embedder: Embedder, file_type: str, data: BenchData) -> Quality:
    """Embed the data with a type, and hold the vectors against what people said.

    Raises:
        InvalidInputError: A text cannot be embedded; it is quoted.
    """
    sentences = data.pairs.sentences if data.pairs is not None else ()
    distinct = list(dict.fromkeys((*data.texts, *sentences)))
    rows = _embedded(embedder, file_type, distinct, "document")
    row_of = dict(zip(distinct, rows, strict=True))
    return Quality(
        vectors=np.stack([row_of[text] for text in data.texts]),
        spearman=None if data.pairs is None else _correlation(row_of, data.pairs),
        ndcg_10=None if data.relevance is None else _gain(embedder, file_type, data.relevance),
    )


def _embedded(embedder: Embedder, file_type: str, texts: Sequence[str], kind: Kind) -> FloatArray:
    try:
        return embedder.embed(file_type, texts, kind)
    except InvalidInputError as exc:
        if not exc.indices:
            raise
        quoted = ", ".join(repr(texts[index][:_SHOWN]) for index in exc.indices[:3])
        raise InvalidInputError(
            f"{len(exc.indices)} of the texts cannot be embedded, such as {quoted}: blank to the "
            "model, or no valid Unicode; take them out",
            indices=exc.indices,
        ) from exc


def _correlation(row_of: Mapping[str, FloatArray], pairs: Pairs) -> float:
    first = np.stack([row_of[sentence] for sentence in pairs.first])
    second = np.stack([row_of[sentence] for sentence in pairs.second])
    return spearman(cosines(first, second), np.array(pairs.scores))


def _gain(embedder: Embedder, file_type: str, relevance: Relevance) -> float:
    documents = _embedded(embedder, file_type, relevance.documents, "document")
    queries = _embedded(embedder, file_type, relevance.queries, "query")
    ranked, _ = top_k(queries, documents, NEIGHBOURS)
    judged = zip(ranked.tolist(), relevance.judged, strict=True)
    return statistics.fmean(ndcg(row, judgements) for row, judgements in judged)


def fidelities(
    qualities: Mapping[str, Quality],
    reference_type: str,
    file_types: Sequence[str],
    texts: Sequence[str],
) -> dict[str, Fidelity]:
    """Compare the vectors of types with those of the reference type.

    Args:
        qualities: By type.
        reference_type: One of them.
        file_types: Which to compare.
        texts: What the vectors are of.
    """
    reference = qualities[reference_type].vectors
    expected = neighbours(reference)
    found = {}
    for one in file_types:
        is_reference = one == reference_type
        vectors = qualities[one].vectors
        near = np.ones(len(texts)) if is_reference else cosines(reference, vectors)
        worst = int(near.argmin())
        found[one] = Fidelity(
            cosine_mean=float(near.mean()),
            cosine_worst=float(near[worst]),
            worst_text=texts[worst],
            cosines=tuple(near.tolist()),
            neighbour_overlap=1.0 if is_reference else overlap(neighbours(vectors), expected),
        )
    return found

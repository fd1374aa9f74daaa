"""Which documents answer a query: a cross-encoder reads each with it, and gives a score."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embellama.calls import Call
from embellama.errors import (
    BatchError,
    ConfigurationError,
    EmbeddingGenerationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
)
from embellama.inputs import is_blank, listed
from embellama.loaded_model import LoadedModel
from embellama.logs import log
from embellama.pooling import rows_with_bad_values
from embellama.rerank.cross_encoder import CrossEncoder, Float64Array, logistic
from embellama.rerank.pairs import BoundTemplate, EncodedPair
from embellama.tokenization import map_inputs
from embellama.types import FloatArray, Overflow


@dataclass(frozen=True, slots=True)
class RerankResult:
    """One document of a query's.

    Attributes:
        index: Its position among the documents given.
        score: How relevant it is: from 0 to 1 if normalised, else the model's logit. The order is
            that of the logits, also where probabilities are too near 0 or 1 to tell apart.
        document: Its text.
        n_tokens: Tokens of the pair before any cut.
        n_dropped: Tokens of the document that a cut took away.
    """

    index: int
    score: float
    document: str
    n_tokens: int
    n_dropped: int = 0


@dataclass(frozen=True, slots=True)
class PairScores:
    """The scores of all documents, in the order given.

    Attributes:
        logits: float64 (n_documents,), by which they are ordered.
        scores: float64 (n_documents,), as asked for: probabilities, or the logits themselves.
        n_tokens: Tokens of each pair before any cut.
        n_dropped: Tokens that a cut took from each document.
    """

    logits: Float64Array
    scores: Float64Array
    n_tokens: tuple[int, ...]
    n_dropped: tuple[int, ...]


def rank(
    scored: PairScores, documents: Sequence[str], *, top_n: int | None = None
) -> list[RerankResult]:
    """Order documents by their logits, the best first; equal ones stay in the order given.

    Not by probabilities, which are all 1.0 where a model is sure of every document.

    Raises:
        ConfigurationError: ``top_n`` is no whole number from 1.
    """
    check_top_n(top_n)
    order = np.argsort(-scored.logits, kind="stable")[:top_n].tolist()
    return [
        RerankResult(
            index=index,
            score=float(scored.scores[index]),
            document=documents[index],
            n_tokens=scored.n_tokens[index],
            n_dropped=scored.n_dropped[index],
        )
        for index in order
    ]


def check_top_n(top_n: object) -> None:
    """Refuse a number of documents that cannot be given.

    Raises:
        ConfigurationError: It is no whole number from 1.
    """
    if top_n is None:
        return
    if not isinstance(top_n, int) or isinstance(top_n, bool) or top_n < 1:
        raise ConfigurationError(f"top_n = {top_n!r}; give 1 or more, or None for all documents")


def score_pairs(
    model: LoadedModel,
    query: str,
    documents: Sequence[str],
    *,
    call: Call,
    overflow: Overflow = "error",
    normalize: bool = True,
    n_jobs: int = 1,
) -> PairScores:
    """Score checked documents against a checked query. Blocks; safe from any thread.

    Args:
        model: A cross-encoder.
        query: What is asked.
        documents: What may answer it.
        call: Who asks.
        overflow: A pair over the model's limit is refused (``"error"``), or its document cut
            (``"truncate"``); the query never is.
        normalize: Scores from 0 to 1 by the logistic function; otherwise logits.
        n_jobs: Threads to tokenize on.

    Raises:
        ConfigurationError: The model makes vectors, ``overflow`` is no policy for pairs, or
            ``normalize`` is no bool.
        EmptyInputError, InputTooLongError: Naming every such document, or the query.
        InvalidInputError: A text cannot be tokenized.
        BatchError: Inference failed for some documents.
        EmbeddingGenerationError: The model gave NaN or infinity for documents, which it names.
    """
    encoder = _cross_encoder(model)
    _check_options(overflow, normalize)
    if not documents:
        return PairScores(np.empty(0), np.empty(0), (), ())
    limit = model.facts.n_ctx
    began = time.perf_counter()
    bound = _bind(encoder, query, limit)
    pairs = _encode(bound, documents, limit if overflow == "truncate" else None, n_jobs)
    model.statistics.record_tokenization(time.perf_counter() - began)
    _check_lengths(pairs, limit, n_besides=bound.n_besides)
    _note_cuts(model, pairs)
    logits = encoder.logits(_infer(model, documents, pairs, call))
    return PairScores(
        logits=logits,
        scores=logistic(logits) if normalize else logits,
        n_tokens=tuple(pair.n_tokens for pair in pairs),
        n_dropped=tuple(pair.n_dropped for pair in pairs),
    )


def _check_options(overflow: object, normalize: object) -> None:
    if overflow not in ("error", "truncate"):
        raise ConfigurationError(
            f"overflow = {overflow!r}; a document to rerank can be refused ('error') or cut "
            "('truncate')"
        )
    if not isinstance(normalize, bool):
        raise ConfigurationError(
            f"normalize = {normalize!r}; give True for scores from 0 to 1, or False for logits"
        )


def _cross_encoder(model: LoadedModel) -> CrossEncoder:
    if model.cross_encoder is None:
        raise ConfigurationError(
            f"model {model.facts.name!r} makes vectors (pooling {model.facts.pooling_type!r}) and "
            "scores no pairs; rerank with a cross-encoder, whose file has the pooling type rank"
        )
    return model.cross_encoder


def _bind(encoder: CrossEncoder, query: str, limit: int) -> BoundTemplate:
    bound = None if is_blank(query) else encoder.template(query)
    if bound is None or not bound.n_query:
        raise EmptyInputError(
            "the query has nothing to ask: it is empty, blank, or only characters that the model "
            "drops"
        )
    if bound.n_besides >= limit:
        raise InputTooLongError(
            f"the query has {bound.n_query} tokens, {bound.n_besides} with what the model puts "
            f"around a pair, which leaves no room for a document in the limit of {limit}; shorten "
            "it",
            indices=(),
            n_tokens=(),
            limit=limit,
        )
    return bound


def _encode(
    bound: BoundTemplate, documents: Sequence[str], room: int | None, n_jobs: int
) -> list[EncodedPair]:
    def encode(document: str) -> EncodedPair | InvalidInputError | None:
        if is_blank(document):
            return None
        try:
            return bound.encode(document, room=room)
        except InvalidInputError as exc:
            return exc

    pairs, empty, unreadable = [], [], {}
    for index, pair in enumerate(map_inputs(encode, documents, n_jobs=n_jobs)):
        if isinstance(pair, InvalidInputError):
            unreadable[index] = str(pair)
        elif pair is None or pair.n_own < 1:
            empty.append(index)
        else:
            pairs.append(pair)
    if unreadable:
        named = listed([f"{index} ({why})" for index, why in unreadable.items()])
        raise InvalidInputError(f"cannot be tokenized: document {named}", indices=list(unreadable))
    if empty:
        raise EmptyInputError(
            f"nothing to judge in document {listed(empty)}: empty, blank, or only characters that "
            "the model drops; leave them out",
            indices=empty,
        )
    return pairs


def _check_lengths(pairs: Sequence[EncodedPair], limit: int, *, n_besides: int) -> None:
    too_long = {i: p.n_tokens for i, p in enumerate(pairs) if len(p.input_ids) > limit}
    if too_long:
        named = listed([f"{index} ({count} tokens)" for index, count in too_long.items()])
        raise InputTooLongError(
            f"over the limit of {limit} tokens together with the query ({n_besides} with special "
            f"tokens): document {named}; split them, or choose overflow='truncate'",
            indices=list(too_long),
            n_tokens=list(too_long.values()),
            limit=limit,
        )


def _note_cuts(model: LoadedModel, pairs: Sequence[EncodedPair]) -> None:
    cuts = [pair.n_dropped for pair in pairs if pair.n_dropped]
    if cuts:
        log.warning(
            "embellama.rerank.truncated",
            model=model.facts.name,
            n_texts=len(cuts),
            n_tokens=sum(cuts),
        )


def _infer(
    model: LoadedModel, documents: Sequence[str], pairs: Sequence[EncodedPair], call: Call
) -> FloatArray:
    """Compute the outputs of all pairs; equal documents get equal ones, as they are computed once.

    Returns:
        float32 (n_pairs, n_labels).
    """
    places: dict[str, list[int]] = {}
    for index, document in enumerate(documents):
        places.setdefault(document, []).append(index)
    distinct = list(places.values())
    rows = _rows_of([pairs[indices[0]] for indices in distinct], model, distinct, call)
    out = np.empty((len(pairs), rows.shape[1]), dtype=np.float32)
    for indices, row in zip(distinct, rows, strict=True):
        out[indices] = row
    return out


def _rows_of(
    pairs: Sequence[EncodedPair],
    model: LoadedModel,
    places: Sequence[Sequence[int]],
    call: Call,
) -> FloatArray:
    types = [pair.token_types for pair in pairs if pair.token_types is not None]
    pending = model.scheduler.submit(
        [pair.input_ids for pair in pairs], token_types=types or None, call=call
    )
    try:
        rows = pending.result()
    except BatchError as exc:
        failed = sorted(index for position in exc.failed_indices for index in places[position])
        raise BatchError(
            f"document {listed(failed)} could not be scored: {exc.__cause__}",
            failed_indices=failed,
        ) from exc.__cause__
    except BaseException:
        pending.cancel()
        raise
    bad = sorted(index for row in rows_with_bad_values(rows) for index in places[row])
    if bad:
        raise EmbeddingGenerationError(
            f"model {model.facts.name!r} gave NaN or infinity for document {listed(bad)}, "
            "also alone and on a fresh context; the file may be damaged: check it with "
            "`embellama doctor`",
            model=model.facts.name,
            indices=bad,
        )
    return rows

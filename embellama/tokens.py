"""Vectors of tokens: one for each, or one for each piece of a text that was computed as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embellama.calls import Call
from embellama.encoding import Encoding, InputEncoder, TextOrIds
from embellama.errors import (
    BatchError,
    ConfigurationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
)
from embellama.inputs import encode_suspects, is_blank
from embellama.loaded_model import LoadedModel
from embellama.pipeline import bad_values
from embellama.pooling import normalize, pool_token_rows, rows_with_bad_values
from embellama.request import EmbedRequest
from embellama.results import TokenEmbeddings
from embellama.spans import Span
from embellama.types import FloatArray, IntArray


def embed_tokens(
    model: LoadedModel,
    items: Sequence[TextOrIds],
    request: EmbedRequest,
    *,
    call: Call,
    n_jobs: int = 1,
) -> list[TokenEmbeddings]:
    """Compute the vector of every token of checked inputs."""
    encoder = request.encoder
    known = encode_suspects(items, encoder, n_jobs=n_jobs)
    encodings = [known.get(index) or _encoded(encoder, item) for index, item in enumerate(items)]
    rows = _token_rows(model, [encoding.windows[0] for encoding in encodings], call)
    model.statistics.record_texts(
        len(items),
        n_truncated=sum(encoding.n_dropped > 0 for encoding in encodings),
        n_dropped_tokens=sum(encoding.n_dropped for encoding in encodings),
    )
    return [
        TokenEmbeddings(
            normalize(vectors, request.normalization),
            encoding.windows[0],
            tuple(_spans(encoder, item, encoding)),
        )
        for item, encoding, vectors in zip(items, encodings, rows, strict=True)
    ]


def _encoded(encoder: InputEncoder, item: TextOrIds) -> Encoding:
    encoding = encoder.encode(item)
    assert encoding is not None  # texts that may be empty were encoded, and refused, before
    return encoding


def _token_rows(model: LoadedModel, sequences: Sequence[IntArray], call: Call) -> list[FloatArray]:
    if not sequences:
        return []
    pending = model.token_scheduler.submit(sequences, call=call)
    try:
        rows = pending.token_rows()
    except BatchError as exc:
        if len(sequences) == 1:
            alone = exc.__cause__ or exc
            raise alone from alone.__cause__
        raise
    except BaseException:
        pending.cancel()
        raise
    bad = [index for index, part in enumerate(rows) if rows_with_bad_values(part)]
    if bad:
        raise bad_values(model.facts.name, bad)
    return rows


def _spans(encoder: InputEncoder, item: TextOrIds, encoding: Encoding) -> Sequence[Span | None]:
    """Return the spans of an input's tokens, counted in the text without its prompt."""
    if not isinstance(item, str):
        return [None] * len(encoding.windows[0])
    whole = encoder.tokenizer.encode(encoder.prompt + item)
    offset = len(encoder.prompt)
    spans = [
        (span[0] - offset, span[1] - offset) if span and span[0] >= offset else None
        for span in encoder.tokenizer.spans(encoder.prompt + item, whole)
    ]
    if not encoding.n_dropped:
        return spans
    n_after, n_own = len(encoder.tokenizer.suffix), encoding.n_own[0]
    head = len(encoding.windows[0]) - n_own - n_after
    end = len(spans) - n_after
    own = spans[end - n_own : end] if encoder.truncate_side == "left" else spans[head:][:n_own]
    return [*spans[:head], *own, *spans[end:]]


def embed_late(
    model: LoadedModel, chunks: Sequence[str], request: EmbedRequest, *, call: Call
) -> FloatArray:
    """Compute the chunks of one text in one pass, so that each vector knows the whole.

    The first chunk's vector has the special tokens (and the prompt) before the text, the last one's
    those after it: a text in one chunk gets the vector that it gets by itself.
    Source: Günther et al., Late Chunking, https://arxiv.org/abs/2409.04701.

    Returns:
        float32 (n_chunks, n_embd), normalised.

    Raises:
        ConfigurationError: The model's pooling looks at one place of the text only.
        EmptyInputError: Chunks without a token.
        InputTooLongError: All chunks together are over the limit.
    """
    if model.facts.pooling_type == "cls":
        raise ConfigurationError(
            f"model {model.facts.name!r} pools by its first token, which stands for the whole text "
            "and not for a chunk; late chunking needs a model with mean or last pooling"
        )
    parts = _chunk_ids(chunks, request.encoder)
    ids = np.concatenate(parts)
    if len(ids) > request.encoder.limit:
        raise InputTooLongError(
            f"{len(chunks)} chunks have {len(ids)} tokens together and the limit of one pass is "
            f"{request.encoder.limit}; give fewer of them at a time",
            indices=range(len(chunks)),
            n_tokens=[len(part) for part in parts],
            limit=request.encoder.limit,
        )
    (rows,) = _token_rows(model, [ids], call)
    model.statistics.record_texts(len(chunks))
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
    if model.facts.pooling_type == "last":
        pooled = rows[offsets[1:] - 1]
    else:
        pooled = pool_token_rows(rows, offsets, model.facts.pooling_type)
    return normalize(pooled, request.normalization)


def _chunk_ids(chunks: Sequence[str], encoder: InputEncoder) -> list[IntArray]:
    tokenizer = encoder.tokenizer
    texts = [encoder.prompt + chunks[0], *chunks[1:]]
    parts, unreadable = [], {}
    for index, text in enumerate(texts):
        try:
            parts.append(tokenizer.encode(text, add_special=False))
        except InvalidInputError as exc:
            unreadable[index] = str(exc)
    if unreadable:
        named = ", ".join(f"{index} ({why})" for index, why in list(unreadable.items())[:10])
        raise InvalidInputError(f"cannot be tokenized: chunk {named}", indices=list(unreadable))
    empty = [
        index
        for index, (chunk, ids) in enumerate(zip(chunks, parts, strict=True))
        if is_blank(chunk) or len(ids) == 0
    ]
    if empty:
        raise EmptyInputError(
            f"nothing to embed in chunk {', '.join(map(str, empty[:10]))}; leave it out",
            indices=empty,
        )
    parts[0] = np.concatenate([tokenizer.prefix, parts[0]])
    parts[-1] = np.concatenate([parts[-1], tokenizer.suffix])
    return parts

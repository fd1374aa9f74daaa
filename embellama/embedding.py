"""The way of many texts through one model: windows, each tokenized while the last one computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from embellama.errors import BatchError, EmbeddingGenerationError
from embellama.inputs import check_texts, encode_suspects
from embellama.loading import LoadedModel
from embellama.pooling import normalize, rows_with_bad_values
from embellama.scheduler import PendingRows
from embellama.types import FloatArray, IntArray

WINDOW = 512
"""Texts that are sorted and packed together; while they compute, the next ones are tokenized."""

FIRST_WINDOW = 64
"""Texts of a stream's first window, so that its first vectors come early; then it doubles."""

BATCH_TOLERANCE = {"F32": 5e-4, "F16": 5e-4, "BF16": 2e-3}
"""Most by which a component differs between a text alone and packed with others, by file type.

The order of sums changes with what else is in the micro-batch. Other types:
`BATCH_TOLERANCE_QUANTIZED`. Source: tests/integration/test_batch_equals_single.py.
"""

BATCH_TOLERANCE_QUANTIZED = 1e-2
"""As above for quantized types, whose kernels round the activations too."""

OnProgress = Callable[[int, int], None]


def embed_one(model: LoadedModel, text: str) -> FloatArray:
    """Embed one checked text.

    Returns:
        float32 (n_embd,).
    """
    encoded = encode_suspects([text], model.tokenizer, limit=model.facts.n_ctx, n_jobs=1)
    ids = encoded[0] if encoded else model.tokenizer.encode(text)
    pending = model.scheduler.submit([ids])
    try:
        rows = pending.result()
    except BatchError as exc:
        raise exc.__cause__ or exc from None
    except BaseException:
        pending.cancel()
        raise
    vector: FloatArray = _finish(model, rows, first_index=0)[0]
    return vector


def embed_many(
    model: LoadedModel,
    texts: Sequence[str],
    *,
    n_jobs: int,
    on_progress: OnProgress = lambda done, total: None,
) -> FloatArray:
    """Embed checked texts.

    Returns:
        float32 (n_texts, n_embd), in the order of the texts.
    """
    encoded = encode_suspects(texts, model.tokenizer, limit=model.facts.n_ctx, n_jobs=n_jobs)
    out = np.empty((len(texts), model.facts.n_embd), dtype=np.float32)
    done = 0

    def advance(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        on_progress(done, len(texts))

    def windows() -> Iterator[list[IntArray]]:
        for start in range(0, len(texts), WINDOW):
            positions = range(start, min(start + WINDOW, len(texts)))
            yield _encode_window(model, texts, positions, encoded, n_jobs)

    start = 0
    for rows in _pipelined(model, windows(), advance):
        out[start : start + len(rows)] = _finish(model, rows, first_index=start)
        start += len(rows)
    return out


def embed_iterable(
    model: LoadedModel, texts: Iterable[str], *, n_jobs: int
) -> Iterator[FloatArray]:
    """Embed an iterable, holding no more than two windows of it; the first ones are small.

    Yields:
        float32 (n_embd,) vectors in the order of the texts.
    """

    def windows() -> Iterator[list[IntArray]]:
        source, start, size = iter(texts), 0, FIRST_WINDOW
        while batch := list(islice(source, size)):
            check_texts(batch, first_index=start)
            encoded = encode_suspects(
                batch, model.tokenizer, limit=model.facts.n_ctx, n_jobs=n_jobs, first_index=start
            )
            yield _encode_window(model, batch, range(len(batch)), encoded, n_jobs)
            start += len(batch)
            size = min(2 * size, WINDOW)

    start = 0
    for rows in _pipelined(model, windows()):
        finished = _finish(model, rows, first_index=start)
        start += len(rows)
        for row in finished:
            # a copy of its own: a view would keep the whole window alive
            yield row.copy()


def _encode_window(
    model: LoadedModel,
    texts: Sequence[str],
    positions: range,
    encoded: dict[int, IntArray],
    n_jobs: int,
) -> list[IntArray]:
    """Return the ids of the texts at some positions, tokenizing those that are not yet."""
    missing = [index for index in positions if index not in encoded]
    fresh = model.tokenizer.encode_many([texts[index] for index in missing], n_jobs=n_jobs)
    found = dict(zip(missing, fresh, strict=True))
    longest, limit = max(map(len, fresh), default=0), model.facts.n_ctx
    if longest > limit:  # the last line of defence: nothing is cut, and no table overrun
        raise EmbeddingGenerationError(
            f"a text of {longest} tokens was taken for one within {limit}; please report this"
        )
    return [found[index] if index in found else encoded.pop(index) for index in positions]


def _pipelined(
    model: LoadedModel,
    windows: Iterator[list[IntArray]],
    on_rows: Callable[[int], None] = lambda n_rows: None,
) -> Iterator[FloatArray]:
    """Yield the rows of each window; the next window is tokenized and queued meanwhile.

    Where a window cannot be had, the rows of those before it come first, and then its error.
    """
    waiting: list[tuple[int, PendingRows]] = []
    start, failure = 0, None
    try:
        while True:
            try:
                window = next(windows, None)
            except Exception as exc:  # noqa: BLE001  # raised below, after the vectors before it
                window, failure = None, exc
            if window is not None:
                waiting.append((start, model.scheduler.submit(window)))
                start += len(window)
            while waiting and (window is None or len(waiting) > 1):
                yield _rows_of(waiting[0], on_rows)
                del waiting[0]
            if window is None:
                break
    except BaseException:
        for _, pending in waiting:
            pending.cancel()
        raise
    if failure is not None:
        raise failure


def _rows_of(window: tuple[int, PendingRows], on_rows: Callable[[int], None]) -> FloatArray:
    start, pending = window
    try:
        return pending.result(on_rows)
    except BatchError as exc:
        indices = [start + index for index in exc.failed_indices]
        raise BatchError(
            f"texts {indices[:10]} could not be embedded: {exc.__cause__}", failed_indices=indices
        ) from exc.__cause__


def _finish(model: LoadedModel, rows: FloatArray, *, first_index: int) -> FloatArray:
    """Normalise the rows of a window while the next one computes; refuse NaN and infinity.

    On the calling thread: 512 rows take 0.3 ms at width 384 and 6 ms at 4,096, which is less than
    handing them to other threads.
    """
    bad = rows_with_bad_values(rows)
    if bad:
        indices = [first_index + index for index in bad]
        raise EmbeddingGenerationError(
            f"model {model.facts.name!r} gave NaN or infinity for text {indices[:10]}; "
            "the file may be damaged: check it with `embellama doctor`"
        )
    return normalize(rows, model.facts.normalization)

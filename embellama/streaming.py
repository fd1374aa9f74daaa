"""Inputs as they come, in bounded memory: window after window, each looked up in the cache."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embellama.calls import Call
from embellama.embedding import (
    WINDOW,
    cached_vectors,
    distinct,
    encode_window,
    finished,
    places_of,
)
from embellama.encoding import Encoding, TextOrIds
from embellama.inputs import check_inputs, encode_suspects
from embellama.loaded_model import LoadedModel
from embellama.lookup import CacheAccess
from embellama.pipeline import Pipeline, Window
from embellama.request import EmbedRequest
from embellama.types import CachedVector, FloatArray

FIRST_WINDOW = 64
"""Texts of a stream's first window, so that its first vectors come early; then it doubles."""


def embed_iterable(
    model: LoadedModel,
    items: Iterable[object],
    request: EmbedRequest,
    *,
    call: Call,
    cache: CacheAccess | None = None,
    n_jobs: int,
) -> Iterator[NDArray[Any]]:
    """Embed an iterable, holding no more than two windows of it; the first ones are small.

    The cache is asked and filled, but a text that another call computes just now is not waited
    for: a stream that nobody reads on would keep others waiting.

    Yields:
        (dimensions,) vectors in the order of the inputs, each its own memory.
    """
    stream = _Stream(model, request, cache, n_jobs)
    pipeline = Pipeline(model, request.normalization, call, stream.places)
    for window, rows in pipeline.run(stream.windows(iter(items))):
        for row in finished(stream.assembled(window, rows), request):
            # a copy of its own: a view would keep the whole window alive
            yield row.copy()


@dataclass(frozen=True, slots=True)
class _Batch:
    """Inputs read together, of which the missing ones are on their way as a window."""

    inverse: Sequence[int]
    keys: Sequence[bytes]
    found: dict[bytes, CachedVector]
    missing: Sequence[int]


class _Stream:
    def __init__(
        self, model: LoadedModel, request: EmbedRequest, cache: CacheAccess | None, n_jobs: int
    ) -> None:
        self._model = model
        self._request = request
        self._cache = cache
        self._n_jobs = n_jobs
        self._batches: deque[_Batch] = deque()
        self._repeats: dict[int, list[int]] = {}

    def windows(self, source: Iterator[object]) -> Iterator[Window]:
        """Read the source, and yield what has to be computed of each part of it."""
        start, size = 0, FIRST_WINDOW
        while part := list(islice(source, size)):
            items = check_inputs(part, n_vocab=self._model.facts.n_vocab, first_index=start)
            yield self._prepared(items, start)
            start += len(part)
            size = min(2 * size, WINDOW)

    def _prepared(self, items: Sequence[TextOrIds], start: int) -> Window:
        unique, inverse = distinct(items)
        keys = self._cache.keys(unique) if self._cache else []
        found = self._cache.look_up(keys) if self._cache else {}
        missing = [index for index in range(len(unique)) if not keys or keys[index] not in found]
        if self._cache:
            self._model.statistics.record_lookups(hits=len(found), misses=len(missing))

        everywhere = places_of(inverse, len(unique), first=start)
        places = [everywhere[index] for index in missing]
        encodings = self._encoded([unique[index] for index in missing], places)
        self._batches.append(_Batch(inverse, keys, found, missing))
        self._repeats.update((each[0], each) for each in places)
        return Window([each[0] for each in places], encodings)

    def _encoded(
        self, items: Sequence[TextOrIds], places: Sequence[Sequence[int]]
    ) -> Sequence[Encoding]:
        began = time.perf_counter()
        known = encode_suspects(
            items, self._request.encoder, n_jobs=self._n_jobs, places=places.__getitem__
        )
        window = encode_window(self._request, items, range(len(items)), known, self._n_jobs)
        self._model.statistics.record_tokenization(time.perf_counter() - began)
        return window.encodings

    def places(self, index: int) -> Sequence[int]:
        """Return all places of an input that is computed now, from its first one."""
        return self._repeats[index]

    def assembled(self, window: Window, rows: FloatArray) -> FloatArray:
        """Return the whole rows of all inputs of the oldest part, and keep the computed ones."""
        batch = self._batches.popleft()
        if self._cache and len(rows):
            keys = [batch.keys[index] for index in batch.missing]
            self._cache.keep(list(zip(keys, cached_vectors(window, rows), strict=True)))
        for place in window.indices:
            del self._repeats[place]
        self._count(batch, window)
        if len(rows) == len(batch.inverse):
            return rows
        n_unique = len(batch.missing) + len(batch.found)
        out = np.empty((n_unique, self._model.facts.n_embd), dtype=np.float32)
        out[batch.missing] = rows
        for number, key in enumerate(batch.keys):
            if key in batch.found:
                out[number] = batch.found[key].vector
        whole: FloatArray = out[batch.inverse]
        return whole

    def _count(self, batch: _Batch, window: Window) -> None:
        cuts = {key: value.n_dropped for key, value in batch.found.items()}
        dropped = [cuts.get(key, 0) for key in batch.keys] or [0] * len(batch.missing)
        for number, encoding in zip(batch.missing, window.encodings, strict=True):
            dropped[number] = encoding.n_dropped
        of_each = [dropped[number] for number in batch.inverse]
        self._model.statistics.record_texts(
            len(of_each),
            n_truncated=sum(n_dropped > 0 for n_dropped in of_each),
            n_dropped_tokens=sum(of_each),
        )

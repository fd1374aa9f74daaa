"""The way of many inputs through one model: known and repeated ones are left out, the rest runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from embellama.calls import Call
from embellama.encoding import Encoding, TextOrIds
from embellama.errors import BatchError, EmbeddingGenerationError
from embellama.inputs import encode_suspects
from embellama.loaded_model import LoadedModel
from embellama.lookup import CacheAccess, CachedCall
from embellama.pipeline import Meter, Pipeline, Stopwatch, Window
from embellama.precision.codes import quantize, shorten
from embellama.request import EmbedRequest
from embellama.results import EmbeddingResult, TextReport, Timings, Usage
from embellama.scheduler import PendingRows
from embellama.tokenization import map_inputs
from embellama.types import CachedVector, FloatArray

WINDOW = 512
"""Texts that are sorted and packed together; while they compute, the next ones are tokenized."""

BATCH_TOLERANCE = {"F32": 5e-4, "F16": 5e-4, "BF16": 2e-3}
"""Most by which a component differs between a text alone and packed with others, by file type.

The order of sums changes with what else is in the micro-batch. Other types:
`BATCH_TOLERANCE_QUANTIZED`. Source: tests/integration/test_batch_equals_single.py.
"""

BATCH_TOLERANCE_QUANTIZED = 1e-2
"""As above for quantized types, whose kernels round the activations too."""

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Embedded:
    """The inputs of a call, embedded.

    Attributes:
        vectors: (n_texts, dimensions) of the precision asked for, in the order of the inputs.
        reports: Parallel to them.
        meter: What it cost.
    """

    vectors: NDArray[Any]
    reports: Sequence[TextReport]
    meter: Meter


def embed_one(
    model: LoadedModel,
    item: TextOrIds,
    request: EmbedRequest,
    *,
    call: Call,
    cache: CacheAccess | None = None,
) -> Embedded:
    """Embed one checked input; an error of inference is raised as it is, not as a batch's."""
    try:
        if cache is None:
            return begin_one(model, item, request, call).end()
        return embed_many(model, [item], request, call=call, cache=cache, n_jobs=1)
    except BatchError as exc:
        raise_alone(exc)


def raise_alone(error: BatchError) -> NoReturn:
    """Raise what went wrong with the only input of a call, as it is."""
    alone = error.__cause__ or error
    raise alone from alone.__cause__


@dataclass(frozen=True, slots=True)
class Begun:
    """One input that is queued: the part of its way after which somebody waits.

    Attributes:
        request: What is wanted.
        pipeline: Finishes its row.
        window: The input, encoded.
        pending: Its row, on its way.
    """

    request: EmbedRequest
    pipeline: Pipeline
    window: Window
    pending: PendingRows | None

    def end(self) -> Embedded:
        """Wait for the row and finish it. Raises as `embed_many`."""
        meter, model = self.pipeline.meter, self.pipeline.model
        rows = self.pipeline.rows_of(self.window, self.pending)
        report = report_of(self.window.encodings[0])
        model.statistics.record_texts(
            1, n_truncated=int(report.truncated), n_dropped_tokens=report.n_dropped
        )
        model.statistics.record_tokenization(meter.tokenize_s)
        return Embedded(finished(rows, self.request), [report], meter)


def begin_one(model: LoadedModel, item: TextOrIds, request: EmbedRequest, call: Call) -> Begun:
    """Encode and queue one input without what only many need, and return at once.

    Next to a short text, Python is no trifle.
    """
    meter = Meter()
    with Stopwatch(meter, "tokenize_s"):
        known = encode_suspects([item], request.encoder, n_jobs=1, check=call.check)
        window = encode_window(request, [item], (0,), known, n_jobs=1)
    pipeline = Pipeline(model, request.normalization, call, meter=meter)
    return Begun(request, pipeline, window, pipeline.submit(window))


def embed_many(
    model: LoadedModel,
    items: Sequence[TextOrIds],
    request: EmbedRequest,
    *,
    call: Call,
    cache: CacheAccess | None = None,
    n_jobs: int,
    on_progress: OnProgress = lambda done, total: None,
) -> Embedded:
    """Embed checked inputs, each different one once.

    Raises:
        InvalidInputError: Before any inference, naming every offending input.
        BatchError: Inference failed for some inputs, which it names.
        EmbeddingGenerationError: NaN or infinity came out.
        EmbeddingTimeoutError: The call's time was up.
    """
    if cache is None and len(items) == 1:
        done = begin_one(model, items[0], request, call).end()
        on_progress(1, 1)
        return done
    return _Batch(model, items, request, call, cache, n_jobs, on_progress).run()


def finished(rows: FloatArray, request: EmbedRequest) -> NDArray[Any]:
    """Return whole float32 rows in the length and precision that the call wants."""
    if request.dimensions < rows.shape[1]:
        rows = shorten(rows, request.dimensions, request.normalization)
    if request.precision == "float32":
        return rows
    return quantize(rows, request.precision, request.calibration)


def distinct(items: Sequence[TextOrIds]) -> tuple[list[TextOrIds], list[int]]:
    """Return the different inputs, and for each input which of them it is."""
    numbers: dict[str | bytes, int] = {}
    unique: list[TextOrIds] = []
    inverse: list[int] = []
    for item in items:
        number = numbers.setdefault(item if isinstance(item, str) else item.tobytes(), len(unique))
        if number == len(unique):
            unique.append(item)
        inverse.append(number)
    return unique, inverse


def places_of(inverse: Sequence[int], n_unique: int, *, first: int = 0) -> list[list[int]]:
    """Return where each of the different inputs is, counted from ``first``."""
    places: list[list[int]] = [[] for _ in range(n_unique)]
    for place, number in enumerate(inverse, first):
        places[number].append(place)
    return places


def encode_window(
    request: EmbedRequest,
    items: Sequence[TextOrIds],
    indices: Sequence[int],
    encoded: dict[int, Encoding],
    n_jobs: int,
) -> Window:
    """Encode the inputs of some indices, but for those that are already, which are taken out."""
    missing = [index for index in indices if index not in encoded]
    fresh = map_inputs(request.encoder.encode, [items[index] for index in missing], n_jobs=n_jobs)
    found = {}
    for index, encoding in zip(missing, fresh, strict=True):
        # the last line of defence: nothing is cut in silence, and no table overrun
        if encoding is None or max(map(len, encoding.windows)) > request.encoder.limit:
            raise EmbeddingGenerationError(
                f"a text that cannot be embedded within {request.encoder.limit} tokens was taken "
                "for one that can; please report this"
            )
        found[index] = encoding
    encodings = [found[index] if index in found else encoded.pop(index) for index in indices]
    return Window(indices, encodings)


def report_of(encoding: Encoding) -> TextReport:
    """Say what became of a text that was computed."""
    return TextReport(encoding.n_tokens, encoding.n_dropped, len(encoding.windows), cached=False)


def cached_report(value: CachedVector) -> TextReport:
    """Say what became of a text when its vector was computed, once."""
    return TextReport(value.n_tokens, value.n_dropped, value.n_windows, cached=True)


def cached_vectors(window: Window, rows: FloatArray) -> list[CachedVector]:
    """Return what is to be kept of a window, parallel to its inputs."""
    return [
        # a copy: a view would keep the whole window in memory
        CachedVector(row.copy(), encoding.n_tokens, encoding.n_dropped, len(encoding.windows))
        for row, encoding in zip(rows, window.encodings, strict=True)
    ]


def detailed(
    model: LoadedModel, request: EmbedRequest, done: Embedded, call: Call
) -> EmbeddingResult:
    """Return what was embedded with what became of it, what made it, and where the time went."""
    meter, fingerprint = done.meter, model.facts.fingerprint
    n_tokens = sum(report.n_tokens - report.n_dropped for report in done.reports)
    return EmbeddingResult(
        vectors=done.vectors,
        texts=tuple(done.reports),
        model=model.facts.name,
        model_fingerprint=fingerprint,
        fingerprint=request.fingerprint(fingerprint),
        usage=Usage(len(done.reports), n_tokens, meter.n_computed_tokens),
        timings=Timings(
            total_s=time.perf_counter() - call.started_s,
            cache_s=meter.cache_s,
            tokenize_s=meter.tokenize_s,
            queue_s=call.waited_s + (meter.queue_s or 0.0),
            inference_s=meter.inference_s,
        ),
    )


@dataclass
class _Batch:
    """One batch: look up, compute what is missing, take what others compute meanwhile."""

    model: LoadedModel
    items: Sequence[TextOrIds]
    request: EmbedRequest
    call: Call
    cache: CacheAccess | None
    n_jobs: int
    on_progress: OnProgress
    meter: Meter = field(default_factory=Meter)
    n_done: int = 0

    def run(self) -> Embedded:
        self.unique, self.inverse = distinct(self.items)
        self.call.check()
        self.reports: dict[int, TextReport] = {}
        self.n_done = len(self.items) - len(self.unique)
        blank = np.zeros((1, self.model.facts.n_embd), dtype=np.float32)
        sample = finished(blank, self.request)
        self.out = np.empty((len(self.unique), sample.shape[1]), dtype=sample.dtype)
        if self.cache is None:
            everything = range(len(self.unique))
            self._compute(everything, self._encoded(everything), lambda window, rows: None)
        else:
            self._through(self.cache)
        reports = [self.reports[number] for number in self.inverse]
        self.model.statistics.record_texts(
            len(reports),
            n_truncated=sum(report.truncated for report in reports),
            n_dropped_tokens=sum(report.n_dropped for report in reports),
        )
        if self.meter.n_computed_tokens:
            self.model.statistics.record_tokenization(self.meter.tokenize_s)
        out = self.out if len(self.unique) == len(self.items) else self.out[self.inverse]
        return Embedded(out, reports, self.meter)

    def _through(self, cache: CacheAccess) -> None:
        keys = cache.keys(self.unique)
        numbers = {key: index for index, key in enumerate(keys)}
        todo: Sequence[bytes] = keys
        with cache.call(self.call) as cached:
            while todo:
                self.call.check()
                with Stopwatch(self.meter, "cache_s"):
                    cached.claim(todo)
                # also those that another call computes now: one error names all that are refused
                known = self._encoded([numbers[key] for key in todo if key not in cached.found])
                self._place(numbers, cached.found)
                missing = [numbers[key] for key in cached.missing]
                self.model.statistics.record_lookups(hits=len(cached.found), misses=len(missing))
                if missing:
                    self._compute(missing, known, self._keeping(cached, keys))
                others, todo = cached.wait()
                self._place(numbers, others)
                self.model.statistics.record_lookups(hits=len(others), misses=0)

    def _keeping(
        self, cached: CachedCall, keys: Sequence[bytes]
    ) -> Callable[[Window, FloatArray], None]:
        def keep(window: Window, rows: FloatArray) -> None:
            with Stopwatch(self.meter, "cache_s"):
                named = [keys[index] for index in window.indices]
                cached.keep(list(zip(named, cached_vectors(window, rows), strict=True)))

        return keep

    def _place(self, numbers: dict[bytes, int], found: dict[bytes, CachedVector]) -> None:
        """Put vectors that were there, or that another call computed, where they belong."""
        if not found:
            return
        indices = [numbers[key] for key in found]
        rows = np.stack([value.vector for value in found.values()])
        self.out[indices] = finished(rows, self.request)
        self.reports.update(zip(indices, map(cached_report, found.values()), strict=True))
        self._advance(len(indices))

    def _encoded(self, indices: Sequence[int]) -> dict[int, Encoding]:
        """Encode those of some inputs that might be refused, and refuse what has to be."""
        with Stopwatch(self.meter, "tokenize_s"):
            encoded = encode_suspects(
                [self.unique[index] for index in indices],
                self.request.encoder,
                n_jobs=self.n_jobs,
                places=lambda position: self._places(indices[position]),
                check=self.call.check,
            )
        return {indices[position]: encoding for position, encoding in encoded.items()}

    def _compute(
        self,
        indices: Sequence[int],
        known: dict[int, Encoding],
        keep: Callable[[Window, FloatArray], None],
    ) -> None:
        """Encode and compute some inputs, window by window."""
        pipeline = Pipeline(
            self.model,
            self.request.normalization,
            self.call,
            self._places,
            self._advance,
            self.meter,
        )
        for window, rows in pipeline.run(self._windows(indices, known)):
            self.out[window.indices] = finished(rows, self.request)
            self.reports.update(zip(window.indices, map(report_of, window.encodings), strict=True))
            keep(window, rows)

    def _windows(self, indices: Sequence[int], known: dict[int, Encoding]) -> Iterator[Window]:
        for start in range(0, len(indices), WINDOW):
            with Stopwatch(self.meter, "tokenize_s"):
                part = indices[start : start + WINDOW]
                window = encode_window(self.request, self.unique, part, known, self.n_jobs)
            yield window

    def _places(self, index: int) -> list[int]:
        return self._all_places[index]

    @cached_property
    def _all_places(self) -> list[list[int]]:
        return places_of(self.inverse, len(self.unique))

    def _advance(self, n_rows: int) -> None:
        self.n_done += n_rows
        self.on_progress(self.n_done, len(self.items))

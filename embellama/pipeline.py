"""Windows of encoded inputs to finished rows; while one computes, the next one is tokenized."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from embellama.calls import Call
from embellama.encoding import Encoding
from embellama.errors import BatchError, EmbeddingGenerationError
from embellama.inputs import listed
from embellama.loaded_model import LoadedModel
from embellama.pooling import merge_windows, normalize, rows_with_bad_values
from embellama.scheduler import PendingRows
from embellama.types import FloatArray, Normalization

Places = Callable[[int], Sequence[int]]
"""From an index of ours to the caller's indices of the same input."""


@dataclass(frozen=True, slots=True)
class Window:
    """Inputs that are sorted and packed together.

    Attributes:
        indices: Which inputs they are, in the pipeline's own counting.
        encodings: Parallel to them.
    """

    indices: Sequence[int]
    encodings: Sequence[Encoding]


@dataclass
class Meter:
    """What a call has cost so far.

    Attributes:
        n_computed_tokens: Tokens that went through the model.
        tokenize_s: Seconds of tokenization on the calling thread.
        queue_s: Seconds until a worker began with the first window; None before.
        inference_s: Seconds of computing, added up over the workers.
        cache_s: Seconds of looking up and keeping vectors.
    """

    n_computed_tokens: int = 0
    tokenize_s: float = 0.0
    queue_s: float | None = None
    inference_s: float = 0.0
    cache_s: float = 0.0

    def add(self, window: Window, pending: PendingRows) -> None:
        """Count a window whose rows are there."""
        self.n_computed_tokens += sum(
            len(ids) for encoding in window.encodings for ids in encoding.windows
        )
        self.queue_s = pending.queue_s if self.queue_s is None else self.queue_s
        self.inference_s += pending.inference_s


@dataclass
class Pipeline:
    """Runs windows through a model and finishes their rows.

    Attributes:
        model: The model.
        normalization: How rows are scaled.
        call: Whose inputs they are.
        places: The caller's indices of an input, for errors.
        on_rows: Told, on the calling thread, how many inputs are done with each micro-batch, or
            with each window where long ones are divided.
        meter: Counts what it costs.
    """

    model: LoadedModel
    normalization: Normalization
    call: Call
    places: Places = lambda index: (index,)
    on_rows: Callable[[int], None] = lambda n_rows: None
    meter: Meter = field(default_factory=Meter)

    def run(self, windows: Iterator[Window]) -> Iterator[tuple[Window, FloatArray]]:
        """Yield each window with its rows, float32 (n_inputs, n_embd), normalised.

        Where a window cannot be had, the rows of those before it come first, and then its error.

        Raises:
            BatchError: Inference failed for some inputs, which it names.
            EmbeddingGenerationError: NaN or infinity came twice for some inputs.
            EmbeddingTimeoutError: The call's time was up.
        """
        waiting: list[tuple[Window, PendingRows | None]] = []
        failure = None
        try:
            while True:
                try:
                    window = next(windows, None)
                except Exception as exc:  # noqa: BLE001  # raised below, after the rows before it
                    window, failure = None, exc
                if window is not None:
                    waiting.append((window, self.submit(window)))
                while waiting and (window is None or len(waiting) > 1):
                    yield waiting[0][0], self.rows_of(*waiting[0])
                    del waiting[0]
                if window is None:
                    break
        except BaseException:
            for _, pending in waiting:
                if pending is not None:
                    pending.cancel()
            raise
        if failure is not None:
            raise failure

    def submit(self, window: Window) -> PendingRows | None:
        """Queue a window and return at once; None where there is nothing to compute."""
        sequences = [ids for encoding in window.encodings for ids in encoding.windows]
        return self.model.scheduler.submit(sequences, call=self.call) if sequences else None

    def rows_of(self, window: Window, pending: PendingRows | None) -> FloatArray:
        """Wait for the rows of a window, float32 (n_inputs, n_embd); raises as `run`."""
        if pending is None:
            return np.empty((0, self.model.facts.n_embd), dtype=np.float32)
        divided = any(len(encoding.windows) > 1 for encoding in window.encodings)
        try:
            rows = pending.result() if divided else pending.result(self.on_rows)
        except BatchError as exc:
            self._raise_failed(window, exc)
        self.meter.add(window, pending)
        self._refuse_bad(window, rows)
        if divided:
            rows = self._merged(window, rows)
            self.on_rows(len(window.encodings))
        # on the calling thread, while the next window computes: 512 rows take 0.3 ms at width 384
        # and 6 ms at 4,096, which is less than handing them to other threads
        return normalize(rows, self.normalization)

    def _raise_failed(self, window: Window, exc: BatchError) -> NoReturn:
        named = self._named(window, exc.failed_indices)
        raise BatchError(
            f"texts {named[:10]} could not be embedded: {exc.__cause__}", failed_indices=named
        ) from exc.__cause__

    def _merged(self, window: Window, rows: FloatArray) -> FloatArray:
        """Make one row of the windows of each long text."""
        merged, start = [], 0
        for encoding in window.encodings:
            stop = start + len(encoding.windows)
            many = stop - start > 1
            merged.append(
                merge_windows(rows[start:stop], encoding.n_own, self.normalization)
                if many
                else rows[start]
            )
            start = stop
        return np.stack(merged)

    def _refuse_bad(self, window: Window, rows: FloatArray) -> None:
        """Refuse NaN and infinity, before anything is computed with them."""
        bad = rows_with_bad_values(rows)
        if bad:
            raise bad_values(self.model.facts.name, self._named(window, bad))

    def _named(self, window: Window, rows: Sequence[int]) -> list[int]:
        """Return the caller's indices of the inputs that some rows belong to."""
        counts = [len(encoding.windows) for encoding in window.encodings]
        owners = np.repeat(window.indices, counts)[list(rows)]
        return sorted(place for index in {*owners.tolist()} for place in self.places(index))


def bad_values(model: str, indices: Sequence[int]) -> EmbeddingGenerationError:
    """Say for which texts a model gave NaN or infinity."""
    return EmbeddingGenerationError(
        f"model {model!r} gave NaN or infinity for text {listed(indices)}, also alone and on a "
        "fresh context; the file may be damaged: check it with `embellama doctor`",
        model=model,
        indices=indices,
    )


class Stopwatch:
    """Adds the seconds of a block to a field of a `Meter`."""

    def __init__(self, meter: Meter, name: str) -> None:
        self._meter = meter
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        spent = time.perf_counter() - self._start
        setattr(self._meter, self._name, getattr(self._meter, self._name) + spent)

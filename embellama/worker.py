"""One thread that owns one context and computes one micro-batch after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embellama.errors import ContextError, EmbeddingGenerationError, EmbellamaError
from embellama.logs import log
from embellama.pooling import ROW_POOLINGS, pool_token_rows
from embellama.types import BackendContext, BackendModel, ContextOptions, FloatArray, MicroBatch
from embellama.waiting import Part, WaitingLine


@dataclass(frozen=True, slots=True)
class Computed:
    """A micro-batch that was computed.

    Attributes:
        n_tokens: Of all its sequences.
        n_slots: Tokens that it could have had: the size of its kind of work, or of one long text.
        queue_s: Seconds that the group waited which waited longest.
        inference_s: Seconds it was computed.
    """

    n_tokens: int
    n_slots: int
    queue_s: float
    inference_s: float


class InferenceWorker:
    """Computes one micro-batch after the other until its line is closed.

    The context is made on the worker's own thread. It starts at the micro-batch's size and grows,
    by doubling and never beyond ``options.n_tokens``, when a longer text comes: a model with a
    long limit costs the memory of the texts it really gets.
    """

    def __init__(
        self,
        model: BackendModel,
        line: WaitingLine,
        number: int,
        *,
        options: ContextOptions,
        n_tokens_at_start: int,
        name: str,
        on_context: Callable[[BackendContext], None] = lambda context: None,
        on_done: Callable[[Computed], None] = lambda computed: None,
    ) -> None:
        self._model = model
        self._line = line
        self._number = number
        self._options = options
        self._n_tokens_at_start = min(n_tokens_at_start, options.n_tokens)
        self._capacity = 0
        self._n_threads = self._threads_set = options.n_threads
        self._context: BackendContext | None = None
        self._is_tainted = False
        self._on_context = on_context
        self._on_done = on_done
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the line is closed, and the worker has finished and freed its context."""
        self._thread.join()

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller runs on the worker's own thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (work := self._line.take(self._number)) is not None:
            self._n_threads = work.n_threads
            try:
                self._compute(work.parts)
            except BaseException as exc:  # noqa: BLE001  # such as a log processor's that raises
                for part in work.parts:
                    part.group.fail(_as_ours(exc))
                told = (type(exc), exc, exc.__traceback__, threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(told))
            del work  # the rows live as long as their caller wants them, not until the next ones
        self._drop_context()

    def _compute(self, parts: Sequence[Part]) -> None:
        start = time.perf_counter()
        batch = None
        try:
            batch = _packed(parts)
            rows = self._rows_of(batch)
            spent = time.perf_counter() - start
            self._on_done(
                Computed(
                    n_tokens=batch.n_tokens,
                    n_slots=max(batch.n_tokens, parts[0].group.layout.max_batch_tokens),
                    queue_s=max(part.group.queue_s for part in parts),
                    inference_s=spent,
                )
            )
            self._deliver(parts, batch, rows, start, spent)
        except BaseException as exc:  # noqa: BLE001  # whatever it is, callers are waiting for it
            if len(parts) == 1:
                parts[0].group.fail(_as_ours(exc))
            try:
                self._drop_context()
                n_tokens = batch.n_tokens if batch is not None else 0
                log.warning("embellama.microbatch.failed", n_tokens=n_tokens, error=repr(exc))
            finally:
                if len(parts) > 1:
                    for part in parts:  # one caller's trouble is not another's
                        self._compute([part])

    def _deliver(
        self,
        parts: Sequence[Part],
        batch: MicroBatch,
        rows: FloatArray,
        start: float,
        spent: float,
    ) -> None:
        pooled = len(rows) == batch.n_sequences and self._options.pooling_type != "none"
        at = 0
        for part in parts:
            n_sequences = part.stop - part.start
            stop = at + (n_sequences if pooled else part.n_tokens)
            # a copy: a view of one caller's rows would keep those of all others alive
            own = rows if len(parts) == 1 else rows[at:stop].copy()
            share_s = spent * part.n_tokens / batch.n_tokens
            part.group.call.computed(part.n_tokens, share_s, start)
            part.group.deliver(part.start, n_sequences, own, inference_s=share_s)
            at = stop

    def _rows_of(self, batch: MicroBatch) -> FloatArray:
        rows = self._context_for(batch.n_tokens).run(batch)
        if not np.isfinite(rows).all():
            log.warning("embellama.microbatch.repeated", n_tokens=batch.n_tokens)
            self._is_tainted = True
            rows = np.concatenate([self._run_alone(single) for single in batch.singles()])
        if self._options.pooling_type in ROW_POOLINGS:
            return pool_token_rows(rows, batch.offsets, self._options.pooling_type)
        return rows

    def _run_alone(self, batch: MicroBatch) -> FloatArray:
        """Compute one sequence on a context that no NaN or infinity has been through.

        One of them spreads to all that is packed with it, because 0 × NaN is NaN, also in an
        attention mask. What is still bad alone is for the caller to refuse, who can name the text.
        """
        rows = self._context_for(batch.n_tokens).run(batch)
        self._is_tainted = not np.isfinite(rows).all()
        return rows

    def _context_for(self, n_tokens: int) -> BackendContext:
        if self._context is None or n_tokens > self._capacity or self._is_tainted:
            self._drop_context()
            capacity = self._n_tokens_at_start
            while capacity < min(n_tokens, self._options.n_tokens):
                capacity = min(2 * capacity, self._options.n_tokens)
            options = replace(self._options, n_tokens=capacity)
            self._context = self._model.create_context(options)
            self._capacity = capacity
            self._is_tainted = False
            self._on_context(self._context)
            self._threads_set = self._options.n_threads
        if self._n_threads != self._threads_set:
            self._context.set_n_threads(self._n_threads)
            self._threads_set = self._n_threads
        return self._context

    def _drop_context(self) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        try:
            context.close()
        except Exception as exc:  # noqa: BLE001  # the worker has other callers to serve
            log.warning("embellama.context.leaked", error=repr(exc))


def _packed(parts: Sequence[Part]) -> MicroBatch:
    sequences = [ids for part in parts for ids in part.sequences]
    if parts[0].token_types is None:
        return MicroBatch.pack(sequences)
    return MicroBatch.pack(sequences, [ids for part in parts for ids in part.token_types or ()])


def _as_ours(exc: BaseException) -> EmbellamaError:
    if isinstance(exc, EmbellamaError):
        return exc
    if isinstance(exc, MemoryError):
        error: EmbellamaError = ContextError(f"memory is short: {exc or 'MemoryError'}")
    else:
        error = EmbeddingGenerationError(f"the worker failed: {exc!r}")
    error.__cause__ = exc
    return error

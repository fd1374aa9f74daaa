"""One thread that owns one context and computes one micro-batch after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from embellama.errors import ContextError, EmbeddingGenerationError, EmbellamaError
from embellama.logs import log
from embellama.pooling import ROW_POOLINGS, pool_token_rows
from embellama.types import BackendContext, BackendModel, ContextOptions, FloatArray, MicroBatch


@dataclass
class Job:
    """A micro-batch and the future its rows go to.

    Attributes:
        batch: What to compute.
        rows: float32 (n_sequences, n_embd), or (n_tokens, n_embd) where nothing is pooled.
        submitted_s: When it was queued, on the clock of `time.perf_counter`.
        queue_s: Seconds it waited; 0 until a worker has taken it.
        inference_s: Seconds it was computed; 0 until it is done.
    """

    batch: MicroBatch
    rows: Future[FloatArray] = field(default_factory=Future)
    submitted_s: float = field(default_factory=time.perf_counter)
    queue_s: float = 0.0
    inference_s: float = 0.0


JobQueue: TypeAlias = "SimpleQueue[Job | None]"
"""Jobs for any worker of a model; each worker ends at the ``None`` it takes."""


class InferenceWorker:
    """Takes jobs from a queue until it takes ``None``.

    The context is made on the worker's own thread. It starts at the micro-batch's size and grows,
    by doubling and never beyond ``options.n_tokens``, when a longer text comes: a model with a
    long limit costs the memory of the texts it really gets.
    """

    def __init__(
        self,
        model: BackendModel,
        jobs: JobQueue,
        *,
        options: ContextOptions,
        n_tokens_at_start: int,
        name: str,
        on_context: Callable[[BackendContext], None] = lambda context: None,
        on_done: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._model = model
        self._jobs = jobs
        self._options = options
        self._n_tokens_at_start = min(n_tokens_at_start, options.n_tokens)
        self._capacity = 0
        self._context: BackendContext | None = None
        self._is_tainted = False
        self._on_context = on_context
        self._on_done = on_done
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the worker has taken its ``None``, finished, and freed its context."""
        self._thread.join()

    @property
    def is_this_thread(self) -> bool:
        """Whether the caller runs on the worker's own thread."""
        return threading.current_thread() is self._thread

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.rows.set_running_or_notify_cancel():
                self._compute(job)
            del job  # the rows live as long as their caller wants them, not until the next job
        self._drop_context()

    def _compute(self, job: Job) -> None:
        start = time.perf_counter()
        job.queue_s = start - job.submitted_s
        try:
            rows = self._rows_of(job.batch)
            job.inference_s = time.perf_counter() - start
            self._on_done(job)
        except BaseException as exc:  # noqa: BLE001  # whatever it is, the caller is waiting for it
            job.rows.set_exception(_as_ours(exc))
            self._drop_context()
            log.warning("embellama.microbatch.failed", n_tokens=job.batch.n_tokens, error=repr(exc))
        else:
            job.rows.set_result(rows)

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
        return self._context

    def _drop_context(self) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        try:
            context.close()
        except Exception as exc:  # noqa: BLE001  # the worker has other callers to serve
            log.warning("embellama.context.leaked", error=repr(exc))


def _as_ours(exc: BaseException) -> EmbellamaError:
    if isinstance(exc, EmbellamaError):
        return exc
    if isinstance(exc, MemoryError):
        error: EmbellamaError = ContextError(f"memory is short: {exc or 'MemoryError'}")
    else:
        error = EmbeddingGenerationError(f"the worker failed: {exc!r}")
    error.__cause__ = exc
    return error

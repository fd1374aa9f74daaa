"""Sequences in, rows out: one queue of micro-batches in front of a model's workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue

import numpy as np

from embellama.batching import plan_micro_batches
from embellama.errors import BatchError, ContextError, EmbellamaError
from embellama.types import (
    BackendContext,
    BackendModel,
    ContextOptions,
    FloatArray,
    IntArray,
    MicroBatch,
)
from embellama.worker import InferenceWorker, Job, JobQueue


class PendingRows:
    """The rows of some sequences, on their way."""

    def __init__(self, planned: list[tuple[list[int], Future[FloatArray]]], n_rows: int) -> None:
        self._planned = planned
        self._n_rows = n_rows

    def result(self, on_rows: Callable[[int], None] = lambda n_rows: None) -> FloatArray:
        """Wait for all rows.

        Args:
            on_rows: Called on this thread with the number of rows each micro-batch brings.

        Returns:
            float32 (n_sequences, n_embd), in the order of the sequences, not normalised.

        Raises:
            BatchError: Some micro-batches failed; the first failure is its cause.
        """
        out: FloatArray | None = None
        failed: list[int] = []
        first: EmbellamaError | None = None
        for indices, future in self._planned:
            try:
                rows = future.result()
            except EmbellamaError as exc:
                first = first or exc
                failed += indices
                continue
            if out is None:
                out = np.empty((self._n_rows, rows.shape[1]), dtype=np.float32)
            out[indices] = rows
            on_rows(len(indices))
        if first is not None:
            raise BatchError(
                f"{len(failed)} of {self._n_rows} texts could not be embedded: {first}",
                failed_indices=sorted(failed),
            ) from first
        assert out is not None
        return out

    def cancel(self) -> None:
        """Take back what no worker has begun."""
        for _, future in self._planned:
            future.cancel()


class Scheduler:
    """Plans micro-batches and hands them to the workers of one model. Safe from any thread."""

    def __init__(
        self,
        model: BackendModel,
        *,
        name: str,
        options: ContextOptions,
        max_batch_tokens: int,
        n_contexts: int,
    ) -> None:
        self._max_batch_tokens = min(max_batch_tokens, options.n_tokens)
        self._max_batch_requests = options.n_sequences
        self._jobs: JobQueue = SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._contexts: dict[str, int] = {}
        self._workers = [
            InferenceWorker(
                model,
                self._jobs,
                options=options,
                n_tokens_at_start=max_batch_tokens,
                name=f"embellama-{name}-{index}",
                on_context=self._note_context,
            )
            for index in range(n_contexts)
        ]

    def _note_context(self, context: BackendContext) -> None:
        self._contexts[threading.current_thread().name] = context.size_bytes

    @property
    def context_bytes(self) -> int:
        """Bytes of the contexts made so far, as the backend states them."""
        return sum(self._contexts.values())

    def submit(self, sequences: Sequence[IntArray]) -> PendingRows:
        """Queue sequences for inference and return at once.

        Raises:
            ContextError: The scheduler is closed.
        """
        plan = plan_micro_batches(
            [len(ids) for ids in sequences],
            max_batch_tokens=self._max_batch_tokens,
            max_batch_requests=self._max_batch_requests,
        )
        jobs = [Job(MicroBatch.pack([sequences[index] for index in indices])) for indices in plan]
        with self._closing:
            if self._closed:
                raise ContextError("the model is being unloaded")
            for job in jobs:
                self._jobs.put(job)
        pairs = [(indices, job.rows) for indices, job in zip(plan, jobs, strict=True)]
        return PendingRows(pairs, len(sequences))

    @property
    def runs_this_thread(self) -> bool:
        """Whether the caller runs on one of the workers' threads."""
        return any(worker.is_this_thread for worker in self._workers)

    def close(self) -> None:
        """Fail what no worker has begun, and wait for the rest. May be called again."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._fail_waiting()
            for _ in self._workers:
                self._jobs.put(None)
        for worker in self._workers:
            worker.join()

    def _fail_waiting(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
            if job is not None and job.rows.set_running_or_notify_cancel():
                job.rows.set_exception(ContextError("the model was unloaded before this was run"))

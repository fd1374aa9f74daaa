"""Sequences in, rows out: one queue of micro-batches in front of a model's workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
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

    def __init__(self, planned: list[tuple[list[int], Job]], n_sequences: int) -> None:
        self._planned = planned
        self._n_sequences = n_sequences

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
        for indices, _, rows in self._arrive():
            if out is None:
                out = np.empty((self._n_sequences, rows.shape[1]), dtype=np.float32)
            out[indices] = rows
            on_rows(len(indices))
        assert out is not None
        return out

    def token_rows(self) -> list[FloatArray]:
        """Wait for the rows of every token, where the model's workers do not pool.

        Returns:
            float32 (n_tokens, n_embd) for each sequence, in their order, not normalised.

        Raises:
            BatchError: As `result`.
        """
        out: dict[int, FloatArray] = {}
        for indices, batch, rows in self._arrive():
            # copies: a view of one text would keep the rows of its whole micro-batch alive
            parts = [part.copy() for part in np.split(rows, batch.offsets[1:-1])]
            out.update(zip(indices, parts, strict=True))
        return [out[index] for index in range(self._n_sequences)]

    def _arrive(self) -> Iterator[tuple[list[int], MicroBatch, FloatArray]]:
        """Yield what each micro-batch brings; raise for the failed ones when all are done."""
        failed: list[int] = []
        first: EmbellamaError | None = None
        for indices, job in self._planned:
            try:
                rows = job.rows.result()
            except EmbellamaError as exc:
                first = first or exc
                failed += indices
                continue
            yield indices, job.batch, rows
        if first is not None:
            raise BatchError(
                f"{len(failed)} of {self._n_sequences} texts could not be embedded: {first}",
                failed_indices=sorted(failed),
            ) from first

    @property
    def inference_s(self) -> float:
        """Seconds that workers computed for these rows, added up; final when they are there."""
        return sum(job.inference_s for _, job in self._planned)

    @property
    def queue_s(self) -> float:
        """Seconds until a worker began with the first of them."""
        return min((job.queue_s for _, job in self._planned), default=0.0)

    def cancel(self) -> None:
        """Take back what no worker has begun."""
        for _, job in self._planned:
            job.rows.cancel()


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
        on_done: Callable[[Job], None] = lambda job: None,
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
                on_done=on_done,
            )
            for index in range(n_contexts)
        ]

    def _note_context(self, context: BackendContext) -> None:
        self._contexts[threading.current_thread().name] = context.size_bytes

    @property
    def context_bytes(self) -> int:
        """Bytes of the contexts made so far, as the backend states them."""
        return sum(self._contexts.values())

    def submit(
        self, sequences: Sequence[IntArray], *, token_types: Sequence[IntArray] | None = None
    ) -> PendingRows:
        """Queue sequences for inference and return at once.

        Args:
            sequences: int32 (n_tokens,) ids each.
            token_types: Parallel to them, for pairs of texts; see `MicroBatch.token_types`.

        Raises:
            ContextError: The scheduler is closed.
        """
        plan = plan_micro_batches(
            [len(ids) for ids in sequences],
            max_batch_tokens=self._max_batch_tokens,
            max_batch_requests=self._max_batch_requests,
        )
        jobs = [Job(_packed(sequences, token_types, indices)) for indices in plan]
        with self._closing:
            if self._closed:
                raise ContextError("the model is being unloaded")
            for job in jobs:
                self._jobs.put(job)
        return PendingRows(list(zip(plan, jobs, strict=True)), len(sequences))

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


def _packed(
    sequences: Sequence[IntArray], token_types: Sequence[IntArray] | None, indices: Sequence[int]
) -> MicroBatch:
    types = [token_types[index] for index in indices] if token_types is not None else None
    return MicroBatch.pack([sequences[index] for index in indices], types)

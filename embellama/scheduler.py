"""Sequences in, rows out: planned into micro-batches for the workers of one model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from embellama.batching import plan_micro_batches, tokens_for_all
from embellama.calls import Call
from embellama.errors import BatchError, EmbellamaError
from embellama.types import (
    SHORT_TOKENS,
    BackendContext,
    BackendModel,
    ContextOptions,
    FloatArray,
    IntArray,
    Layout,
    Layouts,
)
from embellama.waiting import Group, WaitingLine
from embellama.worker import Computed, InferenceWorker


class PendingRows:
    """The rows of some sequences, on their way."""

    def __init__(
        self,
        call: Call,
        planned: list[tuple[list[int], Group]],
        n_sequences: int,
        line: WaitingLine,
    ) -> None:
        self._call = call
        self._line = line
        self._planned = planned
        self._n_sequences = n_sequences

    def on_done(self, tell: Callable[[], None]) -> None:
        """Have something called, on any thread, when `result` would not wait any more."""
        left = len(self._planned)
        counting = threading.Lock()

        def count(_: object) -> None:
            nonlocal left
            with counting:
                left -= 1
                is_last = left == 0
            if is_last:
                tell()

        for _, group in self._planned:
            group.rows.add_done_callback(count)

    def result(self, on_rows: Callable[[int], None] = lambda n_rows: None) -> FloatArray:
        """Wait for all rows.

        Args:
            on_rows: Called on this thread with the number of rows each micro-batch brings.

        Returns:
            float32 (n_sequences, n_embd), in the order of the sequences, not normalised.

        Raises:
            BatchError: Some micro-batches failed; the first failure is its cause.
            EmbeddingTimeoutError: The call's time was up before.
            CancelledError: The call was cancelled.
        """
        out: FloatArray | None = None
        for indices, _, rows in self._arrive():
            if len(self._planned) == 1 and len(indices) == 1:
                on_rows(1)
                return rows
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
            BatchError, EmbeddingTimeoutError, CancelledError: As `result`.
        """
        out: dict[int, FloatArray] = {}
        for indices, group, rows in self._arrive():
            # copies: a view of one text would keep the rows of its whole micro-batch alive
            ends = np.cumsum(group.lengths)[:-1]
            parts = [part.copy() for part in np.split(rows, ends)]
            out.update(zip(indices, parts, strict=True))
        return [out[index] for index in range(self._n_sequences)]

    def _arrive(self) -> Iterator[tuple[list[int], Group, FloatArray]]:
        """Yield what each group brings; raise for the failed ones when all are done."""
        failed: list[int] = []
        first: EmbellamaError | None = None
        try:
            for indices, group in self._planned:
                try:
                    rows = group.rows.result(self._call.remaining_s())
                except EmbellamaError as exc:
                    first = first or exc
                    failed += indices
                    continue
                except BaseException:
                    self.cancel()
                    self._call.check()
                    raise
                yield indices, group, rows
            if first is not None:
                self._call.check()
                raise BatchError(
                    f"{len(failed)} of {self._n_sequences} texts could not be embedded: {first}",
                    failed_indices=sorted(failed),
                ) from first
        finally:
            self._call.off_cancel(self.cancel)

    @property
    def inference_s(self) -> float:
        """Seconds that workers computed for these rows, added up; final when they are there."""
        return sum(group.inference_s for _, group in self._planned)

    @property
    def queue_s(self) -> float:
        """Seconds until a worker began with the first of them."""
        return min((group.queue_s for _, group in self._planned), default=0.0)

    def cancel(self) -> None:
        """Take back what no worker has begun."""
        self._call.off_cancel(self.cancel)
        for _, group in self._planned:
            group.is_wanted = False
        # what a worker has begun is told by it
        self._line.take_back([group for _, group in self._planned if group.rows.cancel()])


class Scheduler:
    """Plans micro-batches and has them computed on one model. Safe from any thread.

    Args:
        model: The model.
        name: For the names of the workers' threads.
        options: Of the contexts: the most tokens of a micro-batch, its most sequences, pooling.
        layouts: How the cores are shared out.
        side_tokens: Most tokens of a micro-batch for all workers but the first, which takes any:
            the memory of a context grows with the longest text that it has met.
        on_done: Told of each computed micro-batch, on the worker's thread.
    """

    def __init__(
        self,
        model: BackendModel,
        *,
        name: str,
        options: ContextOptions,
        layouts: Layouts,
        side_tokens: int | None = None,
        on_done: Callable[[Computed], None] = lambda computed: None,
    ) -> None:
        self._options = options
        self._layouts = layouts
        self._contexts: dict[str, int] = {}
        at_start, n_workers = layouts.max_batch_tokens, layouts.n_contexts
        side = options.n_tokens if side_tokens is None else max(side_tokens, at_start)
        self._line = WaitingLine(
            layouts,
            max_batch_requests=options.n_sequences,
            worker_tokens=[options.n_tokens, *[min(side, options.n_tokens)] * (n_workers - 1)],
        )
        self._workers = [
            InferenceWorker(
                model,
                self._line,
                number,
                options=options,
                n_tokens_at_start=at_start,
                name=f"embellama-{name}-{number}",
                on_context=self._note_context,
                on_done=on_done,
            )
            for number in range(n_workers)
        ]

    def _note_context(self, context: BackendContext) -> None:
        self._contexts[threading.current_thread().name] = context.size_bytes

    @property
    def context_bytes(self) -> int:
        """Bytes of the contexts made so far, as the backend states them."""
        return sum(self._contexts.values())

    def submit(
        self,
        sequences: Sequence[IntArray],
        *,
        token_types: Sequence[IntArray] | None = None,
        call: Call | None = None,
    ) -> PendingRows:
        """Queue sequences for inference and return at once.

        Args:
            sequences: int32 (n_tokens,) ids each.
            token_types: Parallel to them, for pairs of texts; see `MicroBatch.token_types`.
            call: Whose they are; a bulk call that may take any time if not given.

        Raises:
            ContextError: The scheduler is closed.
            EmbeddingTimeoutError, CancelledError: The call is over.
        """
        call = call if call is not None else Call()
        call.check()
        lengths = [len(ids) for ids in sequences]
        layout = self._layout_for(lengths)
        plan = plan_micro_batches(
            lengths,
            max_batch_tokens=tokens_for_all(
                sum(lengths),
                n_contexts=layout.n_contexts,
                max_batch_tokens=min(layout.max_batch_tokens, self._options.n_tokens),
            ),
            max_batch_requests=self._options.n_sequences,
        )
        groups = [
            Group(
                [sequences[index] for index in indices],
                [token_types[index] for index in indices] if token_types is not None else None,
                call,
                layout,
            )
            for indices in plan
        ]
        pending = PendingRows(
            call, list(zip(plan, groups, strict=True)), len(sequences), self._line
        )
        self._line.put(groups)
        call.on_cancel(pending.cancel)
        return pending

    def _layout_for(self, lengths: Sequence[int]) -> Layout:
        is_short = sum(lengths) < SHORT_TOKENS * len(lengths)
        return self._layouts.short if is_short else self._layouts.long

    @property
    def runs_this_thread(self) -> bool:
        """Whether the caller runs on one of the workers' threads."""
        return any(worker.is_this_thread for worker in self._workers)

    def close(self) -> None:
        """Fail what no worker has begun, and wait for the rest. May be called again."""
        self._line.close()
        for worker in self._workers:
            worker.join()

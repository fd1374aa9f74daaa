import threading

import numpy as np
import pytest

from embellama.errors import (
    BatchError,
    ContextError,
    DecodeError,
    EmbeddingGenerationError,
)
from embellama.scheduler import Scheduler
from embellama.testing import FakeModel, length_rows
from embellama.types import ContextOptions, Layout, Layouts


def scheduler_on(model, *, n_tokens=64, n_sequences=4, budget=16, n_contexts=1):
    return Scheduler(
        model,
        name="test",
        options=ContextOptions(n_tokens=n_tokens, n_sequences=n_sequences, n_threads=1),
        layouts=Layouts.of_one(Layout(n_contexts, 1, budget)),
    )


def sequences(*lengths):
    return [np.full(length, 10 + i, dtype=np.int32) for i, length in enumerate(lengths)]


def test_rows_come_back_in_the_order_of_the_sequences():
    scheduler = scheduler_on(FakeModel())
    rows = scheduler.submit(sequences(3, 9, 1, 9, 4)).result()
    np.testing.assert_array_equal(rows[:, 0], [3, 9, 1, 9, 4])
    np.testing.assert_array_equal(rows[:, 1], [10, 11, 12, 13, 14])
    scheduler.close()


def test_each_context_belongs_to_its_worker_thread():
    barrier = threading.Barrier(2, timeout=5)

    def together(batch):
        barrier.wait()  # both workers are in here at once, or this breaks
        return length_rows(batch)

    model = FakeModel(together)
    scheduler = scheduler_on(model, n_contexts=2, budget=4)
    scheduler.submit(sequences(4, 4)).result()
    scheduler.close()
    assert len({context.thread for context in model.contexts}) == 2
    assert all(context.closed for context in model.contexts)


def test_a_context_grows_only_when_a_longer_text_comes():
    model = FakeModel()
    scheduler = scheduler_on(model, n_tokens=100, budget=16)
    scheduler.submit(sequences(5)).result()
    scheduler.submit(sequences(20)).result()
    scheduler.submit(sequences(90)).result()
    scheduler.submit(sequences(5)).result()
    scheduler.close()
    assert [context.options.n_tokens for context in model.contexts] == [16, 32, 100]


def test_an_error_of_the_backend_names_the_texts_and_the_next_call_works():
    def refuse_long(batch):
        if batch.n_tokens > 8:
            raise DecodeError("no", status=-3)
        return length_rows(batch)

    model = FakeModel(refuse_long)
    scheduler = scheduler_on(model, budget=9)
    with pytest.raises(BatchError, match="2 of 4 texts") as caught:
        scheduler.submit(sequences(2, 9, 3, 9)).result()
    assert caught.value.failed_indices == (1, 3)
    assert isinstance(caught.value.__cause__, DecodeError)
    assert scheduler.submit(sequences(2)).result().shape == (1, 2)
    assert model.contexts[0].closed
    scheduler.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("odd"), EmbeddingGenerationError),
        (MemoryError(), ContextError),
        (SystemExit(1), EmbeddingGenerationError),
    ],
)
def test_a_worker_that_meets_the_unexpected_tells_its_caller_and_lives(raised, expected):
    answers = [raised]

    def compute(batch):
        if answers:
            raise answers.pop()
        return length_rows(batch)

    scheduler = scheduler_on(FakeModel(compute))
    with pytest.raises(BatchError) as caught:
        scheduler.submit(sequences(2)).result()
    assert isinstance(caught.value.__cause__, expected)
    assert scheduler.submit(sequences(2)).result().shape == (1, 2)
    scheduler.close()


def test_closing_with_a_full_queue_fails_what_waits_and_finishes_what_runs():
    running, release = threading.Event(), threading.Event()

    def block(batch):
        running.set()
        release.wait(5)
        return length_rows(batch)

    scheduler = scheduler_on(FakeModel(block))
    first = scheduler.submit(sequences(2))
    running.wait(5)
    waiting = [scheduler.submit(sequences(2)) for _ in range(20)]
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    for pending in waiting:
        with pytest.raises(BatchError, match="unloaded before"):
            pending.result()
    release.set()
    assert first.result().shape == (1, 2)
    closing.join(5)
    with pytest.raises(ContextError, match="being unloaded"):
        scheduler.submit(sequences(2))
    scheduler.close()


def test_what_is_cancelled_is_not_computed():
    running, release = threading.Event(), threading.Event()

    def block(batch):
        running.set()
        release.wait(5)
        return length_rows(batch)

    model = FakeModel(block)
    scheduler = scheduler_on(model)
    first = scheduler.submit(sequences(2))
    running.wait(5)
    scheduler.submit(sequences(3)).cancel()
    release.set()
    first.result()
    scheduler.submit(sequences(4)).result()
    scheduler.close()
    assert [batch.n_tokens for batch in model.contexts[0].batches] == [2, 4]


def test_a_context_too_large_for_memory_does_not_spoil_the_next_text():
    model = FakeModel()
    make = model.create_context

    def refuse_large(options):
        if options.n_tokens > 32:
            raise ContextError("no memory")
        return make(options)

    model.create_context = refuse_large
    scheduler = scheduler_on(model, n_tokens=100, budget=16)
    assert scheduler.submit(sequences(5)).result().shape == (1, 2)
    with pytest.raises(BatchError, match="no memory"):
        scheduler.submit(sequences(90)).result()
    assert scheduler.submit(sequences(5)).result().shape == (1, 2)
    scheduler.close()


def test_a_context_that_cannot_be_closed_does_not_hide_the_error():
    def fail(batch):
        raise DecodeError("no", status=-3)

    model = FakeModel(fail)
    make = model.create_context

    def unclosable(options):
        context = make(options)
        context.close = lambda: 1 / 0
        return context

    model.create_context = unclosable
    scheduler = scheduler_on(model)
    for _ in range(2):
        with pytest.raises(BatchError, match="no"):
            scheduler.submit(sequences(2)).result()
    scheduler.close()

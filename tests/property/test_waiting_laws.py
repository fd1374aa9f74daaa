"""Whatever comes when: each sequence is computed once, and its row goes to who asked for it."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embellama.calls import Call
from embellama.errors import BatchError, DecodeError, EmbeddingTimeoutError
from embellama.scheduler import Scheduler
from embellama.testing import FakeModel
from embellama.types import ContextOptions, Layout, Layouts
from tests.conftest import SOAK

BUDGET, FULL, SIDE, N_SEQUENCES = 32, 256, 64, 8
WAIT_S = 20.0
POISON = -1
NAN_ALWAYS = -2


class Computed(FakeModel):
    """Gives each sequence the row (its first id, its length), and remembers what it computed.

    A sequence that begins with `POISON` fails its micro-batch; one with `NAN_ALWAYS` makes all
    rows of it NaN, as a real one does.
    """

    def __init__(self, rest=lambda: None):
        super().__init__(self._rows)
        self.lock = threading.Lock()
        self.micro_batches = []
        self.rest = rest

    def _rows(self, batch):
        self.rest()
        firsts = batch.input_ids[batch.offsets[:-1]]
        lengths = np.diff(batch.offsets)
        with self.lock:
            self.micro_batches.append((firsts.tolist(), lengths.tolist()))
        if POISON in batch.input_ids:
            raise DecodeError("poison", status=-3)
        rows = np.stack([firsts, lengths], axis=1).astype(np.float32)
        return rows * np.float32("nan") if NAN_ALWAYS in batch.input_ids else rows


@contextmanager
def scheduler_on(model, *, n_contexts=2, side=SIDE):
    many = Layout(n_contexts, 1, BUDGET)
    scheduler = Scheduler(
        model,
        name="laws",
        options=ContextOptions(n_tokens=FULL, n_sequences=N_SEQUENCES, n_threads=1),
        layouts=Layouts(many, many, Layout(1, n_contexts, BUDGET)),
        side_tokens=side,
    )
    try:
        yield scheduler
    finally:
        scheduler.close()


def sequence(first, length):
    ids = np.zeros(length, np.int32)
    ids[0] = first
    return ids


def rows_for(firsts, lengths):
    return np.array(list(zip(firsts, lengths, strict=True)), np.float32)


def in_threads(jobs, *, within_s=WAIT_S):
    """Run each on a thread; return what they raised, and fail if one hangs."""
    raised = []

    def run(job):
        try:
            job()
        except BaseException as exc:  # noqa: BLE001  # the caller looks at it
            raised.append(exc)

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    end = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    assert not any(thread.is_alive() for thread in threads), "a call hangs"
    return raised


def check_micro_batches(model, *, side=SIDE):
    for firsts, lengths in model.micro_batches:
        assert len(firsts) <= N_SEQUENCES
        assert len(firsts) == 1 or sum(lengths) <= BUDGET
    sides = [context for context in model.contexts if not context.thread.name.endswith("-0")]
    assert all(batch.n_tokens <= side for context in sides for batch in context.batches)
    assert all(context.closed for context in model.contexts)


calls = st.lists(
    st.tuples(
        st.sampled_from(["interactive", "bulk"]),
        st.lists(st.one_of(st.integers(1, 12), st.integers(1, FULL)), min_size=1, max_size=20),
        st.sampled_from(["wait", "wait", "wait", "cancel", "drop", "hurry"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(calls, st.integers(1, 3), st.sampled_from([BUDGET, SIDE, FULL]))
def test_each_sequence_is_computed_once_and_its_row_is_its_callers(plans, n_contexts, side):
    model = Computed()
    numbers = iter(range(1, 100_000))
    wanted, given_up = [], []

    with scheduler_on(model, n_contexts=n_contexts, side=side) as scheduler:

        def job(priority, lengths, end):
            def run():
                call = Call(priority, 0.001 if end == "hurry" else None)
                try:
                    pending = scheduler.submit(list(map(sequence, firsts, lengths)), call=call)
                    if end == "cancel":
                        call.cancel()
                    elif end == "drop":
                        pending.cancel()
                    np.testing.assert_array_equal(pending.result(), rows_for(firsts, lengths))
                except CancelledError:
                    assert end in {"cancel", "drop"}
                except EmbeddingTimeoutError:
                    assert end == "hurry"

            firsts = [next(numbers) for _ in lengths]
            (wanted if end == "wait" else given_up).extend(firsts)
            return run

        assert in_threads([job(*plan) for plan in plans]) == []
    computed = Counter(first for firsts, _ in model.micro_batches for first in firsts)
    assert {first: computed[first] for first in wanted} == dict.fromkeys(wanted, 1)
    assert all(computed[first] <= 1 for first in given_up)
    assert set(computed) <= {*wanted, *given_up}
    check_micro_batches(model, side=side)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["good", "good", "poison", "nan"]), min_size=2, max_size=24),
    st.randoms(use_true_random=False),
)
def test_one_callers_trouble_is_not_anothers(kinds, chooser):
    """All wait behind one text that holds the only worker, and then share micro-batches."""
    release = threading.Event()
    model = Computed(rest=lambda: release.wait(WAIT_S))
    bad = {"good": None, "poison": POISON, "nan": NAN_ALWAYS}
    with scheduler_on(model, n_contexts=1) as scheduler:
        scheduler.submit([sequence(1, FULL)])
        pending = []
        for number, kind in enumerate(kinds, 10):
            ids = sequence(number, chooser.randint(2, 10))
            if bad[kind] is not None:
                ids[-1] = bad[kind]
            pending.append(scheduler.submit([ids, sequence(1000 + number, 2)]))
        release.set()
        for number, (kind, each) in enumerate(zip(kinds, pending, strict=True), 10):
            if kind == "poison":
                with pytest.raises(BatchError, match="2 of 2 texts") as caught:
                    each.result()
                assert isinstance(caught.value.__cause__, DecodeError)
                continue
            rows = each.result()
            assert np.isnan(rows[0]).all() == (kind == "nan")
            assert rows[1].tolist() == [1000 + number, 2]
            if kind == "good":
                assert rows[0, 0] == number
        assert scheduler.submit([sequence(7, 3)]).result().tolist() == [[7, 3]]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 30), st.integers(0, 10))
def test_closing_answers_everybody(n_contexts, n_calls, n_computed):
    gate = threading.Semaphore(n_computed)
    model = Computed(rest=lambda: gate.acquire(timeout=WAIT_S))
    outcomes = []

    def job(number):
        def run():
            lengths = [1 + number % 40, 5, 2]
            priority = "interactive" if number % 3 else "bulk"
            firsts = [number, 1000 + number, 2000 + number]
            pending = scheduler.submit(
                list(map(sequence, firsts, lengths)), call=Call(priority, caller=number)
            )
            is_there.release()
            try:
                np.testing.assert_array_equal(pending.result(), rows_for(firsts, lengths))
                outcomes.append("rows")
            except BatchError as exc:
                assert "unloaded before" in str(exc)  # noqa: PT017  # both ends are right
                outcomes.append("closed")

        return run

    is_there = threading.Semaphore(0)
    with scheduler_on(model, n_contexts=n_contexts) as scheduler:

        def close():
            assert all(is_there.acquire(timeout=WAIT_S) for _ in range(n_calls))
            closing = threading.Thread(target=scheduler.close)
            closing.start()
            gate.release(1000)
            closing.join(WAIT_S)
            assert not closing.is_alive()

        assert in_threads([*(job(number) for number in range(1, n_calls + 1)), close]) == []
    assert len(outcomes) == n_calls
    assert all(context.closed for context in model.contexts)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_no_wake_up_is_lost_and_no_row_goes_astray_in_very_many_small_submissions():
    n_threads, n_each = 32, 5_000 if SOAK else 150
    model = Computed()

    def caller(number):
        def run():
            chooser = random.Random(number)
            for turn in range(n_each):
                lengths = [
                    chooser.choice([1, 2, 5, 30, BUDGET + 1, SIDE + 1])
                    for _ in range(chooser.choice([1, 1, 1, 2, 9]))
                ]
                first = 1 + (number * n_each + turn) * 10
                firsts = range(first, first + len(lengths))
                patience_s = chooser.choice([None, None, None, WAIT_S, 0.0005])
                call = Call(chooser.choice(["interactive", "bulk"]), patience_s)
                try:
                    pending = scheduler.submit(list(map(sequence, firsts, lengths)), call=call)
                    if chooser.random() < 0.05:
                        call.cancel()
                    rows = pending.result()
                except (EmbeddingTimeoutError, CancelledError):
                    continue
                np.testing.assert_array_equal(rows, rows_for(firsts, lengths))

        return run

    with scheduler_on(model, n_contexts=3) as scheduler:
        callers = [caller(number) for number in range(n_threads)]
        assert in_threads(callers, within_s=280 if SOAK else WAIT_S) == []
    computed = Counter(first for firsts, _ in model.micro_batches for first in firsts)
    assert set(computed.values()) == {1}
    check_micro_batches(model)

"""One cache and many calls at once: each text computed once, every fault told, nobody stuck."""

import itertools
import signal
import sys
import threading
import time

import numpy as np
import pytest

from embellama import (
    BatchError,
    DecodeError,
    EmbeddingGenerationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
)
from tests.recording import in_threads, recording_engine, tiny_texts

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

WAIT_S = 30
"""Longest that a thread of a test may take; a stuck one fails the test."""


@pytest.fixture
def recorded(tiny_path):
    engine, backend = recording_engine(tiny_path)
    with engine:
        yield engine, backend


# ── many threads ────────────────────────────────────────────────────────────────────────────────


def test_eight_threads_that_miss_the_same_texts_compute_each_once(recorded):
    engine, backend = recorded
    texts = tiny_texts(300)
    gate = threading.Barrier(8)
    backend.before = lambda batch: time.sleep(0.001)

    def embed(shift):
        gate.wait(WAIT_S)
        order = texts[shift:] + texts[:shift]
        return np.roll(engine.embed_batch("m", order), shift, axis=0)

    found = in_threads(*(lambda shift=shift: embed(shift) for shift in range(0, 160, 20)))
    assert len(backend.sequences) == 300
    assert set(backend.times.values()) == {1}
    for vectors in found[1:]:
        np.testing.assert_array_equal(vectors, found[0])
    stats = engine.stats()["m"]
    assert stats.cache_misses == 300
    assert stats.cache_hits == 7 * 300
    assert stats.n_texts == 8 * 300


def test_overlapping_calls_in_opposite_order_do_not_wait_for_each_other_forever(recorded):
    engine, backend = recorded
    texts = tiny_texts(1200)
    backend.before = lambda batch: time.sleep(0.0005)
    calls = [texts, texts[::-1], texts[300:] + texts[:300], texts[600:900] + texts[:300]]
    found = in_threads(*(lambda call=call: engine.embed_batch("m", call) for call in calls))
    by_text = dict(zip(texts, found[0], strict=True))
    for call, vectors in zip(calls, found, strict=True):
        np.testing.assert_array_equal(vectors, np.stack([by_text[text] for text in call]))
    assert set(backend.times.values()) == {1}


def press_ctrl_c():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def held_leader(engine, backend, texts, outcome):
    """Start a call that stops inside inference, and then ends as ``outcome`` says."""
    inside, go_on = threading.Event(), threading.Event()

    def hold(batch):
        if not inside.is_set():
            inside.set()
            assert go_on.wait(WAIT_S)
            outcome()

    backend.before = hold
    done = []
    leader = threading.Thread(
        target=lambda: done.extend(in_threads(lambda: engine.embed_batch("m", texts)))
    )
    leader.start()
    assert inside.wait(WAIT_S)
    return leader, go_on, done


def test_a_call_that_fails_leaves_its_texts_to_those_who_wait(recorded):
    engine, backend = recorded
    texts = tiny_texts(20)

    def fail():
        raise DecodeError("scripted", status=-3)

    leader, go_on, done = held_leader(engine, backend, texts, fail)
    found = []
    waiters = [
        threading.Thread(target=lambda: found.append(engine.embed_batch("m", texts)))
        for _ in range(3)
    ]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.1)
    assert not found
    go_on.set()
    for thread in (leader, *waiters):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert isinstance(done[0], BatchError)
    assert len(found) == 3
    for vectors in found:
        np.testing.assert_array_equal(vectors, found[0])
    assert engine.stats()["m"].n_errors == 1
    # one of the three computed what the failed call did not keep, for all of them
    assert set(backend.times.values()) <= {1, 2}


def test_a_fault_that_stays_reaches_every_caller(recorded):
    engine, backend = recorded
    texts = tiny_texts(20)

    def fail(batch):
        time.sleep(0.002)
        raise DecodeError("scripted", status=-3)

    backend.before = fail
    found = in_threads(*(lambda: engine.embed_batch("m", texts) for _ in range(6)))
    assert all(isinstance(each, BatchError) for each in found)
    assert {each.failed_indices for each in found} == {tuple(range(20))}
    backend.before = lambda batch: None
    assert engine.embed_batch("m", texts).shape == (20, 64)


def test_not_a_number_is_never_kept(recorded):
    engine, backend = recorded
    backend.after = lambda rows: rows * np.nan
    with pytest.raises(EmbeddingGenerationError, match="NaN"):
        engine.embed_batch("m", tiny_texts(10))
    with pytest.raises(EmbeddingGenerationError, match="NaN"):
        list(engine.embed_stream("m", tiny_texts(10)))
    backend.after = lambda rows: rows
    assert np.isfinite(engine.embed_batch("m", tiny_texts(10))).all()


@needs_signals
def test_ctrl_c_in_the_computing_call_frees_those_who_wait(recorded):
    engine, backend = recorded
    texts = tiny_texts(40)
    inside, go_on, found = threading.Event(), threading.Event(), []

    def hold(batch):
        if not inside.is_set():
            inside.set()
            assert go_on.wait(WAIT_S)

    def interrupt():
        assert inside.wait(WAIT_S)
        waiter.start()
        time.sleep(0.1)
        press_ctrl_c()

    backend.before = hold
    waiter = threading.Thread(target=lambda: found.append(engine.embed_batch("m", texts)))
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        engine.embed_batch("m", texts)
    go_on.set()
    for thread in (interrupter, waiter):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert found[0].shape == (40, 64)


@needs_signals
def test_ctrl_c_ends_a_call_that_waits_for_another(recorded):
    engine, backend = recorded
    texts = tiny_texts(5)
    leader, go_on, done = held_leader(engine, backend, texts, lambda: None)
    threading.Timer(0.2, press_ctrl_c).start()
    with pytest.raises(KeyboardInterrupt):
        engine.embed_batch("m", texts)
    go_on.set()
    leader.join(WAIT_S)
    assert done[0].shape == (5, 64)


def test_unloading_while_others_wait_reaches_all(tiny_path):
    engine, backend = recording_engine(tiny_path)
    texts = tiny_texts(400)
    backend.before = lambda batch: time.sleep(0.02)
    calls = [lambda: engine.embed_batch("m", texts)] * 3
    closing = threading.Timer(0.1, engine.close)
    closing.start()
    found = in_threads(*calls)
    closing.join(WAIT_S)
    for each in found:  # closing waits for running work
        assert each.shape == (400, 64)


# ── invalid texts ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("warm", [False, True])
def test_invalid_texts_are_named_at_all_their_places(recorded, warm):
    engine, backend = recorded
    if warm:
        engine.embed_batch("m", ["a", "c"])
    backend.sequences.clear()
    told = []
    texts = ["a", "", "c", "a " * 15, "a", "", "\ud800", "a " * 15]
    with pytest.raises(InvalidInputError) as caught:
        engine.embed_batch("m", texts, progress=lambda done, total: told.append(done))
    assert caught.value.indices == (1, 3, 5, 6, 7)
    assert not told
    assert not backend.sequences
    with pytest.raises(EmptyInputError) as caught:
        list(engine.embed_stream("m", ["a", " ", "c", " "]))
    assert caught.value.indices == (1, 3)
    with pytest.raises(InputTooLongError) as caught:
        engine.embed_batch("m", ["a", "a " * 15, "a " * 15])
    assert (caught.value.indices, caught.value.n_tokens) == ((1, 2), (17, 17))


def test_very_many_invalid_texts_are_named_in_good_time(recorded):
    engine, _ = recorded
    texts = [f"{'a ' * 14} {number}" for number in range(30_000)]
    start = time.perf_counter()
    with pytest.raises(InputTooLongError) as caught:
        engine.embed_batch("m", texts)
    assert caught.value.indices == tuple(range(30_000))
    assert time.perf_counter() - start < 20


def test_texts_that_another_call_has_claimed_are_named_too(recorded):
    """The other call fails by them; this one must not run inference first, nor forget them."""
    engine, backend = recorded
    inside, go_on = threading.Event(), threading.Event()
    encode = engine._registry._entries["m"].model.tokenizer.encode
    bad = "a " * 15

    def slow(text, **options):
        if text == bad and not inside.is_set():
            inside.set()
            assert go_on.wait(WAIT_S)
        return encode(text, **options)

    engine._registry._entries["m"].model.tokenizer.encode = slow
    first = threading.Thread(target=lambda: in_threads(lambda: engine.embed_batch("m", [bad])))
    first.start()
    assert inside.wait(WAIT_S)
    threading.Timer(0.2, go_on.set).start()
    with pytest.raises(InvalidInputError) as caught:
        engine.embed_batch("m", ["a", bad, " ", "c"])
    assert caught.value.indices == (1, 2)
    assert not backend.sequences
    first.join(WAIT_S)


def test_a_failing_text_is_named_at_all_its_places(recorded):
    engine, backend = recorded

    def refuse(batch):
        if 7 in batch.input_ids:
            raise DecodeError("scripted", status=-3)

    backend.before = refuse
    engine.embed_batch("m", ["a a"])
    texts = ["ab", "a a", "ab"]
    with pytest.raises(BatchError) as caught:
        engine.embed_batch("m", texts)
    assert caught.value.failed_indices == (0, 2)
    with pytest.raises(BatchError) as caught:
        list(engine.embed_stream("m", texts))
    assert caught.value.failed_indices == (0, 2)
    # a window later, counted from the beginning of the stream
    stream = engine.embed_stream("m", [*["a a"] * 64, "c", *texts])
    assert len(list(itertools.islice(stream, 64))) == 64
    with pytest.raises(BatchError) as caught:
        next(stream)
    assert {65, 67} <= set(caught.value.failed_indices)


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_does_not_wait_for_a_call_that_computes_the_same(recorded):
    engine, backend = recorded
    texts = tiny_texts(5)
    leader, go_on, done = held_leader(engine, backend, texts, lambda: None)
    threading.Timer(0.3, go_on.set).start()  # the one context is busy until then
    assert len(list(engine.embed_stream("m", texts))) == 5
    leader.join(WAIT_S)
    assert done[0].shape == (5, 64)


def test_a_stream_left_open_keeps_nobody_waiting(recorded):
    engine, _ = recorded
    texts = tiny_texts(300)
    stream = engine.embed_stream("m", texts)
    next(stream)
    (vectors,) = in_threads(lambda: engine.embed_batch("m", texts))
    assert vectors.shape == (300, 64)
    stream.close()

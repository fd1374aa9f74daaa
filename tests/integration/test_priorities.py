"""Concurrent callers of one real model: who shares, who goes first, who stops waiting."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from embellama import (
    BatchError,
    ContextError,
    DecodeError,
    EmbeddingEngine,
    EmbeddingTimeoutError,
    EngineConfig,
    ModelConfig,
    OverloadedError,
)
from embellama.cache import EmbeddingCache
from embellama.embedding import BATCH_TOLERANCE
from embellama.waiting import FAIR_TURNS, SHRINK
from tests.conftest import QUIET
from tests.recording import RecordingBackend, in_threads, tiny_texts
from tests.reference_texts import SENTENCES

BUDGET = 64
RARE = 10
"""An id that no text here has, unless it is meant to fail."""

WAIT_S = 20.0
SOON_S = 2.0
"""Well below `WAIT_S`, for what must not wait for the worker."""


class Watched(RecordingBackend):
    """llama.cpp behind a gate, with a note of every micro-batch."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.sizes = []
        self.before = self._watch

    def _watch(self, batch):
        self.sizes.append(batch.n_tokens)
        self.entered.release()
        assert self.gate.wait(WAIT_S), "the test never opened the gate"
        if RARE in batch.input_ids:
            raise DecodeError("scripted", status=-3)

    def next_micro_batch(self):
        assert self.entered.acquire(timeout=WAIT_S)

    @contextmanager
    def held(self, engine):
        """Hold the only worker inside an earlier text."""
        self.gate.clear()
        self.entered = threading.Semaphore(0)
        holder = threading.Thread(target=lambda: engine.embed_batch("m", ["a a", "a a a"]))
        holder.start()
        try:
            self.next_micro_batch()
            yield
        finally:
            self.gate.set()
            holder.join(WAIT_S)
            assert not holder.is_alive()


@pytest.fixture
def make_engine(tiny_path):
    engines = []

    def make(cache=None, **settings):
        backend = Watched()
        engine = EmbeddingEngine(EngineConfig(**settings), backend=backend, cache=cache)
        engines.append((engine, backend))
        config = ModelConfig(
            n_contexts=1,
            n_threads=1,
            max_batch_tokens=BUDGET,
            prompts={"query": "", "document": ""},
        )
        engine.load_model(tiny_path, name="m", config=config)
        return engine, backend

    yield make
    for engine, backend in engines:
        backend.gate.set()
        engine.close()


@pytest.fixture
def watched(make_engine):
    return make_engine()


@contextmanager
def started(*functions):
    """Run functions on threads beside the block; none may be left behind at the end."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


# ── shared micro-batches ─────────────────────────────────────────────────────────────────────


def test_32_threads_get_what_each_would_get_alone(engine):
    texts = SENTENCES[:48]
    alone = np.stack([engine.embed("minilm", text) for text in texts])
    before = engine.stats()["minilm"].n_batches

    def job(number):
        own = range(number, len(texts), 32)
        return [(index, engine.embed("minilm", texts[index])) for index in own]

    found = in_threads(*(lambda number=number: job(number) for number in range(32)))
    for index, row in (pair for pairs in found for pair in pairs):
        assert np.abs(row - alone[index]).max() <= BATCH_TOLERANCE["F16"]
    assert engine.stats()["minilm"].n_batches - before < len(texts)


def test_texts_of_callers_who_wait_together_share_a_micro_batch(watched):
    engine, backend = watched
    texts = tiny_texts(6)
    with backend.held(engine):
        calls = [lambda text=text: engine.embed("m", text) for text in texts]
        with started(*calls):
            time.sleep(0.1)  # until all are in line
            backend.gate.set()
    assert len(backend.sizes) == 2
    assert set(backend.times.values()) == {1}


@pytest.mark.parametrize("config", [QUIET, ModelConfig()], ids=["two contexts", "default"])
def test_a_call_alone_gets_the_same_bits_every_time(minilm_path, config):
    texts = [" ".join(SENTENCES[: 1 + number % 5]) for number in range(20)]
    with EmbeddingEngine() as engine:
        engine.load_model(minilm_path, name="m", config=config)
        first = engine.embed_batch("m", texts)
        one = engine.embed("m", texts[7])
        for _ in range(2):
            np.testing.assert_array_equal(engine.embed_batch("m", texts), first)
            # also right after an interactive call of the same caller
            np.testing.assert_array_equal(engine.embed("m", texts[7]), one)


def test_one_callers_failing_text_does_not_fail_the_others(watched):
    engine, backend = watched
    good, bad = tiny_texts(4), [6, 7, RARE, 6]
    expected = [engine.embed("m", text) for text in good]
    with backend.held(engine):
        found = []

        def callers():
            wanted = [lambda text=text: engine.embed("m", text) for text in good]
            found.extend(in_threads(*wanted, lambda: engine.embed("m", bad)))

        with started(callers):
            time.sleep(0.1)
            backend.gate.set()
    assert isinstance(found.pop(), DecodeError)
    for row, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(row, alone, atol=BATCH_TOLERANCE["F16"])


# ── who goes first ───────────────────────────────────────────────────────────────────────────


def test_an_interactive_text_is_next_while_a_bulk_job_runs(watched):
    engine, backend = watched
    bulk, single = tiny_texts(900), "c"
    with backend.held(engine), started(lambda: engine.embed_batch("m", bulk)):
        with started(lambda: engine.embed("m", single)):
            time.sleep(0.1)  # until both are in line
            n_before = len(backend.sequences)
            backend.gate.set()
        place = backend.sequences.index(engine.tokenize("m", single).tolist())
    # after what the worker was held in, and before the bulk job
    assert place - n_before <= 2


def test_bulk_micro_batches_are_small_while_interactive_callers_are_there(watched):
    engine, backend = watched
    engine.embed_batch("m", tiny_texts(100))
    assert max(backend.sizes) > BUDGET // SHRINK
    with started(lambda: engine.embed("m", "c")):
        pass
    backend.sizes.clear()
    engine.embed_batch("m", tiny_texts(100))  # this thread's, and not that caller's
    assert max(backend.sizes) <= BUDGET // SHRINK
    assert sum(backend.sizes) == sum(engine.count_tokens("m", text) for text in tiny_texts(100))


def test_a_bulk_job_ends_however_many_interactive_callers_there_are(watched):
    engine, _ = watched
    done = threading.Event()

    def hammer(number):
        texts = tiny_texts(50, start=1000 + 50 * number)
        while not done.is_set():
            for text in texts:
                engine.embed("m", text)

    with started(*(lambda number=number: hammer(number) for number in range(6))):
        try:
            found = in_threads(lambda: engine.embed_batch("m", tiny_texts(300)))
        finally:
            done.set()
    assert found[0].shape == (300, 64)


def test_a_batch_can_be_interactive_and_a_text_bulk(watched):
    engine, backend = watched
    texts = tiny_texts(3 * FAIR_TURNS)
    with backend.held(engine):
        urgent = lambda: engine.embed_batch("m", texts, priority="interactive")  # noqa: E731
        with started(lambda: engine.embed("m", "c", priority="bulk")):
            time.sleep(0.05)
            with started(urgent):
                time.sleep(0.05)
                backend.gate.set()
    bulk = backend.sequences.index(engine.tokenize("m", "c").tolist())
    assert backend.sequences.index(engine.tokenize("m", texts[0]).tolist()) < bulk


# ── who stops waiting ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "verb",
    [
        lambda engine, **given: engine.embed("m", "c c", **given),
        lambda engine, **given: engine.embed_query("m", "c c", **given),
        lambda engine, **given: engine.embed_batch("m", tiny_texts(1200), **given),
        lambda engine, **given: engine.embed_documents("m", ["c c", "a c"], **given),
        lambda engine, **given: engine.embed_detailed("m", ["c c", "a c"], **given),
    ],
    ids=["embed", "embed_query", "embed_batch", "embed_documents", "embed_detailed"],
)
def test_time_is_up_while_the_worker_is_busy(watched, verb):
    engine, backend = watched
    with backend.held(engine):
        began = time.monotonic()
        with pytest.raises(EmbeddingTimeoutError, match="timeout_s = 0.1") as caught:
            verb(engine, timeout_s=0.1)
        assert 0.1 <= time.monotonic() - began < SOON_S
        assert caught.value.timeout_s == 0.1
    n_before = len(backend.sequences)
    engine.embed("m", "a")
    assert len(backend.sequences) == n_before + 1  # nothing of it was computed after all
    assert engine.stats()["m"].n_errors == 1


def test_time_is_up_also_for_the_token_rows(watched):
    engine, backend = watched
    engine.embed_tokens("m", ["a"])  # makes its worker
    backend.gate.clear()
    with pytest.raises(EmbeddingTimeoutError):
        engine.embed_tokens("m", ["c c"], timeout_s=0.05)
    with pytest.raises(EmbeddingTimeoutError):
        engine.embed_late("m", ["c ", "a"], timeout_s=0.05)


def test_time_is_up_while_another_call_computes_the_same_text(make_engine):
    engine, backend = make_engine(cache=EmbeddingCache.in_memory())
    with backend.held(engine):
        for texts in (["a a"], ["a a", "a a a", "c"]):
            began = time.monotonic()
            with pytest.raises(EmbeddingTimeoutError):
                engine.embed_batch("m", texts, timeout_s=0.1)
            assert time.monotonic() - began < SOON_S


def test_vectors_that_arrive_one_by_one_do_not_give_a_call_more_time(make_engine):
    """The other call's windows come each within the time, and all of them together do not."""
    engine, backend = make_engine(cache=EmbeddingCache.in_memory())
    texts, begun = tiny_texts(2000), threading.Event()

    def slowly(batch):
        begun.set()
        time.sleep(0.004)

    def follow():
        assert begun.wait(WAIT_S)
        return _timed(lambda: engine.embed_batch("m", texts, timeout_s=0.7))

    backend.before = slowly
    vectors, (error, seconds) = in_threads(lambda: engine.embed_batch("m", texts), follow)
    assert vectors.shape == (2000, 64)
    assert isinstance(error, EmbeddingTimeoutError)
    assert seconds < 0.7 + SOON_S


def _timed(function):
    began = time.monotonic()
    try:
        result = function()
    except EmbeddingTimeoutError as exc:
        result = exc
    return result, time.monotonic() - began


def test_a_call_that_times_out_leaves_its_texts_to_those_who_wait_for_them(make_engine):
    engine, backend = make_engine(cache=EmbeddingCache.in_memory())
    with backend.held(engine):
        found = []

        def callers():
            found.extend(
                in_threads(
                    lambda: engine.embed("m", "c c", timeout_s=0.2),
                    lambda: time.sleep(0.1) or engine.embed("m", "c c"),
                )
            )

        with started(callers):
            time.sleep(0.5)
            backend.gate.set()
    assert isinstance(found[0], EmbeddingTimeoutError)
    np.testing.assert_array_equal(found[1], engine.embed("m", "c c"))
    assert backend.times[tuple(engine.tokenize("m", "c c").tolist())] == 1


def test_a_call_that_was_given_enough_time_gets_its_vectors(watched):
    engine, _ = watched
    texts = tiny_texts(700)
    np.testing.assert_array_equal(
        engine.embed_batch("m", texts, timeout_s=WAIT_S), engine.embed_batch("m", texts)
    )


# ── room, and the end ────────────────────────────────────────────────────────────────────────


def test_a_call_too_many_is_refused_and_every_end_gives_its_place_back(make_engine):
    engine, backend = make_engine(max_concurrent_requests=2)
    with backend.held(engine):
        stream = engine.embed_stream("m", iter(["a"] * 3))
        with started(lambda: next(stream)):
            time.sleep(0.1)
            for verb in (
                lambda: engine.embed("m", "c"),
                lambda: engine.embed_batch("m", ["c"]),
                lambda: next(engine.embed_stream("m", ["c"])),
                lambda: engine.embed_tokens("m", ["c"]),
            ):
                with pytest.raises(OverloadedError, match="2 calls run or wait already"):
                    verb()
            backend.gate.set()
    # neither the holder takes a place now, nor the stream, which waits for its reader
    for _ in range(3):
        engine.embed("m", "c")
        with pytest.raises(EmbeddingTimeoutError):
            engine.embed("m", "c", timeout_s=0)
        with pytest.raises(ValueError, match="empty|nothing"):
            engine.embed("m", "")
    stream.close()
    abandoned = engine.embed_stream("m", tiny_texts(500))
    next(abandoned)
    del abandoned
    streams = [engine.embed_stream("m", ["a", "c"]) for _ in range(2)]
    assert [next(each).shape for each in streams] == [(64,), (64,)]
    for each in streams:
        each.close()


def test_an_abandoned_stream_takes_back_what_is_not_begun(watched):
    engine, backend = watched
    stream = engine.embed_stream("m", tiny_texts(3000))
    next(stream)
    backend.gate.clear()
    time.sleep(0.05)
    stream.close()
    n_before = len(backend.sequences)
    backend.gate.set()
    engine.embed("m", "c")
    assert len(backend.sequences) - n_before <= 1 + 2 * BUDGET


def test_closing_with_a_full_line_answers_everybody(watched):
    engine, backend = watched
    found = []

    def callers():
        texts = tiny_texts(40)
        found.extend(in_threads(*(lambda text=text: engine.embed("m", text) for text in texts)))

    with backend.held(engine), started(callers):
        time.sleep(0.1)
        with started(engine.close):
            while not engine._closed:
                time.sleep(0.001)
            backend.gate.set()
    assert len(found) == 40
    for each in found:
        assert isinstance(each, np.ndarray | ContextError), each


def test_the_next_call_works_after_every_kind_of_trouble(watched):
    engine, _ = watched
    expected = engine.embed("m", "c")
    for _ in range(3):
        with pytest.raises(BatchError):
            engine.embed_batch("m", [[6, RARE], [6, 6, 6]])
        with pytest.raises(EmbeddingTimeoutError):
            engine.embed("m", "c", timeout_s=0)
        np.testing.assert_array_equal(engine.embed("m", "c"), expected)

"""Awaited verbs that say more than a vector, and single texts, which the loop itself begins."""

import asyncio
import threading
import time
import warnings

import numpy as np
import pytest

from embellama import (
    BatchError,
    ConfigurationError,
    ContextError,
    DecodeError,
    EmbeddingCache,
    EmbeddingEngine,
    EmbeddingTimeoutError,
    EmbellamaWarning,
    EngineConfig,
    InvalidInputError,
    ModelConfig,
    ModelNotFoundError,
    OverloadedError,
    loaded_model,
)
from embellama.async_verbs import _N_THREADS, LOOP_THREAD_CHARS
from embellama.testing import FakeBackend
from tests.gated import WAIT_S, Gate, run
from tests.tiny_gguf import write_gguf

SOON_S = 1.5
BAD = "a b c d e f g"
"""A text of nine tokens, which the backend does not compute."""


class Picky(Gate):
    """Rows (first id, length), and no sequence of nine tokens."""

    def __call__(self, batch):
        rows = super().__call__(batch)
        if 9 in np.diff(batch.offsets):
            raise DecodeError("scripted", status=-3)
        return rows


@pytest.fixture
def gate():
    return Picky()


@pytest.fixture
def make_engine(gate, tmp_path):
    path, engines = write_gguf(tmp_path / "m.gguf"), []

    def make(cache=None, **settings):
        engine = EmbeddingEngine(
            EngineConfig(cache_path=tmp_path, **settings), backend=FakeBackend(gate), cache=cache
        )
        engines.append(engine)
        engine.load_model(path, name="m", config=ModelConfig(n_contexts=1, n_threads=1))
        return engine

    yield make
    gate.is_open.set()
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine):
    return make_engine()


def calls_of(engine):
    """Return each awaited verb that can begin a text on the loop, as a call of that text."""
    return [
        lambda text, **options: engine.aembed("m", text, **options),
        lambda text, **options: engine.aembed_detailed("m", [text], **options),
    ]


# ── what comes back ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["a b"],
        ("a b",),
        [[5, 3]],
        ["a" * (LOOP_THREAD_CHARS + 1)],
        ["a b", "c", "a b"],
        [[5, 3], "a b", np.array([7, 8], dtype=np.int32)],
    ],
    ids=["none", "one", "tuple", "ids", "long", "many", "mixed"],
)
@pytest.mark.parametrize("is_cached", [False, True])
def test_the_same_as_the_blocking_verb_gives(make_engine, texts, is_cached):
    engine = make_engine(EmbeddingCache.in_memory() if is_cached else None)
    options = {"overflow": "truncate", "dimensions": 1, "force_dimensions": True}
    blocking = engine.embed_detailed("m", texts, **options)
    if is_cached:
        engine.cache.clear()
    awaited = run(lambda: engine.aembed_detailed("m", texts, **options))
    np.testing.assert_array_equal(awaited.vectors, blocking.vectors)
    assert awaited.vectors.shape == (len(texts), 1)
    for name in ("texts", "model", "model_fingerprint", "fingerprint", "usage"):
        assert getattr(awaited, name) == getattr(blocking, name), name
    if texts:
        assert 0 < awaited.timings.inference_s <= awaited.timings.total_s


def test_waiting_for_a_thread_is_told_as_waiting(engine, gate):
    async def main():
        with gate.held():
            tasks = [
                asyncio.create_task(engine.aembed_detailed("m", ["a b", "c"]))
                for _ in range(_N_THREADS["bulk"] + 1)
            ]
            await gate.entered()
            await asyncio.sleep(0.2)
        return [done.timings for done in await asyncio.gather(*tasks)]

    *_, last = run(main)
    assert 0.2 <= last.queue_s < last.total_s


def test_a_text_is_counted_once_however_it_is_begun(engine):
    for call in calls_of(engine):
        before = engine.stats()["m"]
        run(lambda call=call: call("a b"))
        after = engine.stats()["m"]
        assert (after.n_texts - before.n_texts, after.n_tokens - before.n_tokens) == (1, 4)


def test_one_text_tells_of_its_progress_too(engine):
    told = []
    rows = engine.embed_batch("m", ["a b"], progress=lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(rows, [engine.embed("m", "a b")])
    assert told[-1] == (1, 1)


def test_500_texts_get_their_own_rows_and_share_micro_batches(engine, gate):
    lengths = [1 + number % 6 for number in range(500)]

    async def main():
        with gate.held():
            tasks = [
                asyncio.create_task(engine.aembed("m", "a " * length, normalization="none"))
                for length in lengths
            ]
            await gate.entered()
        return await asyncio.gather(*tasks)

    assert [row[1] for row in run(main)] == [length + 2 for length in lengths]
    assert engine.stats()["m"].n_batches < 60


def test_the_loop_runs_on_while_a_text_is_computed(engine, gate):
    async def main():
        with gate.held():
            tasks = [asyncio.create_task(call("a b")) for call in calls_of(engine)]
            await gate.entered()
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not any(task.done() for task in tasks)
        return await asyncio.gather(*tasks)

    row, detailed = run(main)
    np.testing.assert_array_equal(detailed.vectors, [row])


def test_a_warning_names_the_callers_line(engine):
    async def main():
        await engine.aembed_detailed("m", ["a"], kind="query")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(main)
    assert [warning.category for warning in caught] == [EmbellamaWarning]
    assert caught[0].filename == __file__


# ── errors ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("other", ["a"]), {}, ModelNotFoundError),
        (("m", ["a", "", "b", ""]), {}, InvalidInputError),
        (("m", [""]), {}, InvalidInputError),
        (("m", [5]), {}, InvalidInputError),
        (("m", "a"), {}, InvalidInputError),
        (("m", ["a"]), {"priority": "urgent"}, ConfigurationError),
        (("m", ["a"]), {"timeout_s": -1}, ConfigurationError),
        (("m", ["a"]), {"dimensions": 5000}, ConfigurationError),
        (("m", ["a " * 40]), {}, InvalidInputError),
        (("m", [BAD]), {}, BatchError),
        (("m", ["a", BAD]), {}, BatchError),
    ],
)
def test_errors_are_those_of_the_blocking_verb(engine, arguments, options, error):
    with pytest.raises(error) as awaited:
        run(lambda: engine.aembed_detailed(*arguments, **options))
    with pytest.raises(error) as blocking:
        engine.embed_detailed(*arguments, **options)
    assert type(awaited.value) is type(blocking.value)
    assert str(awaited.value) == str(blocking.value)


def test_a_text_alone_fails_with_what_went_wrong(engine):
    with pytest.raises(DecodeError, match="scripted"):
        run(lambda: engine.aembed("m", BAD))
    with pytest.raises(DecodeError, match="scripted"):
        engine.embed("m", BAD)
    assert run(lambda: engine.aembed("m", "a")).shape == (2,)


def test_one_texts_error_is_not_anothers(engine, gate):
    async def main():
        with gate.held():
            first = asyncio.create_task(engine.aembed("m", "a"))
            await gate.entered()
            tasks = [asyncio.create_task(engine.aembed("m", text)) for text in ("a b", BAD, "a")]
            await asyncio.sleep(0.05)
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    kinds = [type(each) for each in run(main)]
    assert kinds == [np.ndarray, np.ndarray, DecodeError, np.ndarray]


def test_tokens_and_pairs_are_refused_as_by_the_blocking_verbs(engine):
    cases = [
        (lambda: engine.aembed_tokens("m", [""]), lambda: engine.embed_tokens("m", [""])),
        (lambda: engine.arerank("m", "a", ["b"]), lambda: engine.rerank("m", "a", ["b"])),
        (
            lambda: engine.aembed_tokens("m", ["a"], overflow="window"),
            lambda: engine.embed_tokens("m", ["a"], overflow="window"),
        ),
    ]
    for awaited, blocking in cases:
        with pytest.raises((ConfigurationError, InvalidInputError)) as expected:
            blocking()
        with pytest.raises(type(expected.value)) as found:
            run(awaited)
        assert str(found.value) == str(expected.value)


# ── time-outs, cancelling, room ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [0, 1])
def test_time_is_up_while_another_is_computed_and_the_text_is_taken_back(engine, gate, number):
    call = calls_of(engine)[number]

    async def main():
        with gate.held():
            first = asyncio.create_task(engine.aembed("m", "a"))
            await gate.entered()
            began = time.monotonic()
            with pytest.raises(EmbeddingTimeoutError, match="timeout_s = 0.05"):
                await call("a b", timeout_s=0.05)
            assert time.monotonic() - began < SOON_S
        await first
        with pytest.raises(EmbeddingTimeoutError):
            await call("a b", timeout_s=0)

    run(main)
    assert engine.stats()["m"].n_texts == 1


@pytest.mark.parametrize("number", [0, 1])
def test_a_cancelled_task_takes_its_text_back(engine, gate, number):
    call = calls_of(engine)[number]

    async def main():
        with gate.held():
            first = asyncio.create_task(engine.aembed("m", "a"))
            await gate.entered()
            for _ in range(10):
                task = asyncio.create_task(call("a b"))
                await asyncio.sleep(0.005)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await first
        await call("a b c")

    run(main)
    assert len(gate.computed) == 2
    assert engine.stats()["m"].n_texts == 2


@pytest.mark.parametrize("number", [0, 1])
def test_a_coroutine_that_is_closed_takes_its_text_back(engine, gate, number):
    async def main():
        with gate.held():
            first = asyncio.create_task(engine.aembed("m", "a"))
            await gate.entered()
            left = calls_of(engine)[number]("a b")
            left.send(None)
            left.close()
        await first

    run(main)
    assert len(gate.computed) == 1
    assert engine.stats()["m"].n_texts == 1


def test_a_long_prompt_is_tokenized_on_a_thread(engine, monkeypatch):
    threads, resolve = [], loaded_model.resolve_request

    def noting(*arguments):
        threads.append(threading.get_ident())
        return resolve(*arguments)

    monkeypatch.setattr(loaded_model, "resolve_request", noting)
    for n_chars, on_loop in ((10, True), (LOOP_THREAD_CHARS, False)):
        for call in calls_of(engine):
            threads.clear()
            run(lambda call=call, n=n_chars: call("a", prompt=" " * n, precision="binary"))
            assert [thread == threading.get_ident() for thread in threads] == [on_loop]
            engine._registry._entries["m"].model._requests.clear()


def test_unloading_on_the_loop_does_not_wait_for_what_it_awaits(engine, gate):
    """The last call frees the model, on another thread than the loop's."""

    async def main():
        with gate.held():
            task = asyncio.create_task(engine.aembed("m", "a b", normalization="none"))
            await gate.entered()
            began = time.monotonic()
            engine.unload_model("m", timeout_s=WAIT_S)
            assert time.monotonic() - began < SOON_S
            assert not engine.is_loaded("m")
        return await task

    freed_on, model = [], engine._registry._entries["m"].model
    freed, close = threading.Event(), model.close

    def noting():
        freed_on.append(threading.get_ident())
        close()
        freed.set()

    model.close = noting
    assert run(main)[1] == 4
    assert freed.wait(WAIT_S)
    assert freed_on != [threading.get_ident()]


def test_what_is_computed_for_nobody_harms_nobody(engine, gate):
    """Cancelled, and out of time, while it is being computed."""

    async def main():
        with gate.held():
            task = asyncio.create_task(engine.aembed("m", "a"))
            await gate.entered()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with gate.held():
            with pytest.raises(EmbeddingTimeoutError):
                await engine.aembed_detailed("m", ["a"], timeout_s=0.05)
            await gate.entered()
        return await engine.aembed("m", "a b", normalization="none")

    assert run(main)[1] == 4


@pytest.mark.parametrize("number", [0, 1])
def test_one_too_many_is_refused_and_places_are_given_back(make_engine, gate, number):
    engine = make_engine(max_concurrent_requests=2)
    call = calls_of(engine)[number]

    async def main():
        for text in ("a", BAD, ""):  # however calls end
            for _ in range(3):
                await asyncio.gather(call(text), return_exceptions=True)
        with gate.held():
            tasks = [asyncio.create_task(call("a")) for _ in range(2)]
            await gate.entered()
            with pytest.raises(OverloadedError, match="2 calls run or wait"):
                await call("a")
        return await asyncio.gather(*tasks, call("a"), return_exceptions=True)

    done = run(main)
    assert not isinstance(done[0], Exception)
    assert not isinstance(done[1], Exception)
    assert isinstance(done[2], OverloadedError)


def test_tokens_wait_on_a_thread_and_can_be_left(engine, gate):
    async def main():
        with gate.held():
            with pytest.raises(EmbeddingTimeoutError):
                await engine.aembed_tokens("m", [[5, 3]], timeout_s=0.05)
            task = asyncio.create_task(engine.aembed_tokens("m", [[6, 3]]))
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return await engine.aembed_tokens("m", [[7, 3]])

    assert run(main)[0].input_ids.tolist() == [7, 3]


def test_a_closed_engine_says_so(engine):
    engine.close()
    for call in (
        *calls_of(engine),
        lambda text: engine.aembed_tokens("m", [text]),
        lambda text: engine.arerank("m", text, ["b"]),
    ):
        with pytest.raises(ContextError, match="closed"):
            run(lambda call=call: call("a"))


def test_closing_finishes_what_the_loop_began(engine, gate):
    async def main():
        tasks = [asyncio.create_task(engine.aembed("m", "a b")) for _ in range(30)]
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.to_thread(engine.close), WAIT_S)
        return await asyncio.gather(*tasks, return_exceptions=True)

    done = run(main)
    assert all(isinstance(each, np.ndarray | ContextError) for each in done)
    assert any(isinstance(each, np.ndarray) for each in done)

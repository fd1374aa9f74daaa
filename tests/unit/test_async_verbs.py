"""Awaited verbs on a backend that answers when the test says so."""

import asyncio
import threading
import time

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
    EngineConfig,
    InvalidInputError,
    ModelConfig,
    ModelNotFoundError,
    OverloadedError,
)
from embellama.testing import FakeBackend
from tests.gated import WAIT_S, Gate, run
from tests.tiny_gguf import write_gguf

SOON_S = 1.5
"""Well below `WAIT_S`, for what must not wait for the backend."""


@pytest.fixture
def gate():
    return Gate()


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


async def ticks(number):
    for _ in range(number):
        await asyncio.sleep(0)


def plain(engine, number, **options):
    """Await the row of a text of two tokens, as the backend gives it."""
    return engine.aembed("m", [number, 3], normalization="none", **options)


# ── what comes back ──────────────────────────────────────────────────────────────────────────


def test_they_give_what_the_blocking_verbs_give(engine):
    ids = [[5, 3], [7], [8, 8, 8]]
    options = {"dimensions": 1, "force_dimensions": True, "precision": "float16"}

    async def main():
        return (
            await engine.aembed(None, ids[0]),
            await engine.aembed_batch("m", ids, **options),
            await engine.aembed_batch("m", []),
        )

    one, many, none = run(main)
    np.testing.assert_array_equal(one, engine.embed("m", ids[0]))
    np.testing.assert_array_equal(many, engine.embed_batch("m", ids, **options))
    assert many.dtype == np.float16
    assert none.shape == (0, 2)


def test_five_hundred_tasks_get_their_own_rows(engine, gate):
    async def main():
        return await asyncio.gather(*(plain(engine, number) for number in range(1, 501)))

    assert [row.tolist() for row in run(main)] == [[number, 2] for number in range(1, 501)]
    assert sorted(gate.computed) == list(range(1, 501))


def test_tasks_share_micro_batches(engine, gate):
    entries = []

    async def main():
        with gate.held():
            tasks = [asyncio.create_task(plain(engine, number)) for number in range(1, 41)]
            await gate.entered()
            await asyncio.sleep(0.1)  # so that the others are in line behind the first
        await asyncio.gather(*tasks)
        entries.append(engine.stats()["m"].n_batches)

    run(main)
    assert entries[0] < 20


def test_the_loop_runs_on_while_the_backend_computes(engine, gate):
    """If the loop waited for it, nobody would open the gate."""

    async def main():
        with gate.held():
            calls = [
                asyncio.create_task(plain(engine, 9)),
                asyncio.create_task(engine.aembed_batch("m", [[4, 4], [5]])),
                asyncio.create_task(plain(engine, 10, timeout_s=WAIT_S)),
            ]
            await gate.entered()
            began = time.monotonic()
            await ticks(1000)
            assert time.monotonic() - began < SOON_S
            assert not any(call.done() for call in calls)
        return await asyncio.gather(*calls)

    assert run(main)[0].tolist() == [9, 2]


def test_bulk_tasks_do_not_keep_interactive_ones_from_getting_in_line(engine, gate):
    """More of them than threads: an interactive one is computed before most of them."""

    async def main():
        with gate.held():
            bulk = [
                asyncio.create_task(engine.aembed_batch("m", [[number] * 8 for _ in range(2)]))
                for number in range(100, 160)
            ]
            await gate.entered()
            single = asyncio.create_task(plain(engine, 9))
            await asyncio.sleep(0.1)
        await asyncio.gather(single, *bulk)

    run(main)
    assert gate.computed.index(9) < len(gate.computed) / 2


# ── errors ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("other", "a"), {}, ModelNotFoundError),
        (("m", ""), {}, InvalidInputError),
        (("m", 5), {}, InvalidInputError),
        (("m", "a"), {"priority": "urgent"}, ConfigurationError),
        (("m", "a"), {"timeout_s": -1}, ConfigurationError),
        (("m", "a"), {"dimensions": 5000}, ConfigurationError),
        (("m", [666]), {}, DecodeError),
    ],
)
def test_errors_are_those_of_the_blocking_verb(engine, arguments, options, error):
    with pytest.raises(error) as awaited:
        run(lambda: engine.aembed(*arguments, **options))
    with pytest.raises(error) as blocking:
        engine.embed(*arguments, **options)
    assert type(awaited.value) is type(blocking.value)
    assert str(awaited.value) == str(blocking.value)


def test_errors_of_a_batch_name_their_texts(engine):
    with pytest.raises(BatchError) as caught:
        run(lambda: engine.aembed_batch("m", [[5], [666], [7]]))
    assert 1 in caught.value.failed_indices
    with pytest.raises(InvalidInputError) as refused:
        run(lambda: engine.aembed_batch("m", ["a", "", "b", ""]))
    assert tuple(refused.value.indices) == (1, 3)
    with pytest.raises(InvalidInputError, match="str"):
        run(lambda: engine.aembed_batch("m", "a b"))


def test_one_tasks_error_is_not_anothers(engine, gate):
    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            tasks = [asyncio.create_task(plain(engine, n)) for n in (2, 666, 3)]
            await asyncio.sleep(0.05)
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    first, second, bad, third = run(main)
    assert [first[0], second[0], third[0]] == [1, 2, 3]
    assert isinstance(bad, DecodeError)


class Unreachable:
    """A cache of the caller's own, behind a network that is down."""

    def get_many(self, keys):
        raise TimeoutError("the cache does not answer")

    def put_many(self, items):
        pass


@pytest.mark.parametrize("timeout_s", [None, 100.0])
def test_a_timeout_that_is_not_ours_is_not_taken_for_ours(make_engine, timeout_s):
    engine = make_engine(cache=Unreachable())
    with pytest.raises(TimeoutError, match="does not answer") as caught:
        run(lambda: plain(engine, 5, timeout_s=timeout_s))
    assert not isinstance(caught.value, EmbeddingTimeoutError)


# ── time-outs and cancelling ─────────────────────────────────────────────────────────────────


def test_time_is_up_while_the_worker_is_busy_and_the_text_is_never_computed(make_engine, gate):
    engine = make_engine(max_concurrent_requests=2)

    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            began = time.monotonic()
            for number in (2, 3, 4):  # each gives its place back
                with pytest.raises(EmbeddingTimeoutError, match="timeout_s = 0.05") as caught:
                    await plain(engine, number, timeout_s=0.05)
                assert caught.value.timeout_s == 0.05
            assert time.monotonic() - began < SOON_S
        await first
        await plain(engine, 5)

    run(main)
    assert gate.computed == [1, 5]


def test_time_is_up_also_for_what_is_being_computed(engine, gate):
    async def main():
        with gate.held():
            began = time.monotonic()
            with pytest.raises(EmbeddingTimeoutError):
                await plain(engine, 1, timeout_s=0.05)
            with pytest.raises(EmbeddingTimeoutError):
                await engine.aembed_batch("m", [[5], [6]], timeout_s=0.05)
            assert time.monotonic() - began < SOON_S
        return await plain(engine, 7)

    assert run(main).tolist() == [7, 2]


def test_no_time_at_all_and_any_time(engine, gate):
    with pytest.raises(EmbeddingTimeoutError):
        run(lambda: plain(engine, 1, timeout_s=0))
    assert run(lambda: plain(engine, 2, timeout_s=float("inf")))[0] == 2
    assert gate.computed == [2]


def test_a_cancelled_task_takes_its_text_back_and_gives_its_place_back(make_engine, gate):
    engine = make_engine(max_concurrent_requests=3)

    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            for number in range(2, 12):
                task = asyncio.create_task(plain(engine, number))
                await asyncio.sleep(0.01)  # it is in line by now
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        await first
        await plain(engine, 20)

    run(main)
    assert gate.computed == [1, 20]


def test_pythons_own_time_outs_work_too(engine, gate):
    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.05):
                    await plain(engine, 2)
            assert not isinstance(caught.value, EmbeddingTimeoutError)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.aembed_batch("m", [[3], [4]]), 0.05)
        await first
        await plain(engine, 5)

    run(main)
    assert gate.computed == [1, 5]


def test_an_error_that_comes_with_the_cancelling_is_not_complained_of(engine, gate):
    async def main():
        gate.shut()
        task = asyncio.create_task(plain(engine, 666))
        await gate.entered()
        gate.is_open.set()
        while engine.stats()["m"].n_errors < 1:
            time.sleep(0.001)
        time.sleep(0.05)  # on purpose not awaited: the loop is to find both at once
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_cancelled_batch_ends_within_its_micro_batch(engine, gate):
    async def main():
        with gate.held():
            task = asyncio.create_task(engine.aembed_batch("m", [[n] * 16 for n in range(1, 900)]))
            await gate.entered()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await plain(engine, 950)

    run(main)
    assert len(gate.computed) < 200
    assert gate.computed[-1] == 950


def test_tasks_that_wait_for_a_thread_can_be_cancelled_too(engine, gate):
    """There are more of them than threads; what is begun ends, and the rest never begins."""

    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            tasks = [asyncio.create_task(plain(engine, number)) for number in range(2, 301)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in done)
        await first
        began = time.monotonic()
        assert (await plain(engine, 400))[0] == 400
        assert time.monotonic() - began < SOON_S

    run(main)
    assert gate.computed == [1, 400]


def test_tasks_that_wait_for_anothers_vector_do_not_keep_their_threads_when_cancelled(
    make_engine, gate
):
    """More of them than threads: the next one, of another text, would find none."""
    engine = make_engine(cache=EmbeddingCache.in_memory())

    async def main():
        with gate.held():
            first = asyncio.create_task(plain(engine, 1))
            await gate.entered()
            same = [asyncio.create_task(plain(engine, 1)) for _ in range(80)]
            await asyncio.sleep(0.1)
            for task in same:
                task.cancel()
            await asyncio.gather(*same, return_exceptions=True)
            other = asyncio.create_task(plain(engine, 2))
            while engine.stats()["m"].cache_misses < 2:  # it looks its text up on a thread
                await asyncio.sleep(0.01)
        await asyncio.gather(first, other)

    run(main)


# ── room, and the end ────────────────────────────────────────────────────────────────────────


def test_one_task_too_many_is_refused_at_once(make_engine, gate):
    engine = make_engine(max_concurrent_requests=4)

    async def main():
        with gate.held():
            tasks = [asyncio.create_task(plain(engine, number)) for number in range(1, 5)]
            await gate.entered()
            with pytest.raises(OverloadedError, match="4 calls run or wait"):
                await plain(engine, 9)
            with pytest.raises(OverloadedError):  # both kinds of verbs are counted together
                engine.embed("m", [9])
        await asyncio.gather(*tasks)
        return await plain(engine, 10)

    assert run(main)[0] == 10
    assert 9 not in gate.computed


def test_places_are_given_back_however_calls_end(make_engine, gate):
    engine = make_engine(max_concurrent_requests=1)

    async def main():
        for _ in range(3):
            await plain(engine, 1)
            with pytest.raises(DecodeError):
                await plain(engine, 666)
            with pytest.raises(InvalidInputError):
                await engine.aembed("m", "")
            with pytest.raises(ModelNotFoundError):
                await engine.aembed("none", "a")
            with pytest.raises(EmbeddingTimeoutError):
                await plain(engine, 2, timeout_s=0)
            stream = engine.embed_stream("m", [[5], [6]])
            next(stream)
            stream.close()

    run(main)


def test_closing_while_tasks_wait_finishes_what_runs_and_refuses_the_rest(make_engine, gate):
    engine = make_engine(unload_timeout_s=WAIT_S)
    closing = threading.Thread(target=engine.close)

    async def main():
        gate.shut()
        tasks = [asyncio.create_task(plain(engine, number)) for number in range(1, 201)]
        await gate.entered()
        await asyncio.sleep(0.1)
        closing.start()
        while not engine._closed:
            await asyncio.sleep(0.001)
        gate.is_open.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    done = run(main)
    closing.join(WAIT_S)
    assert not closing.is_alive()
    assert done[0].tolist() == [1, 2]
    refused = [each for each in done if isinstance(each, Exception)]
    assert refused
    assert {type(each) for each in refused} == {ContextError}
    rows = [
        (number, each) for number, each in enumerate(done, 1) if not isinstance(each, Exception)
    ]
    assert all(row.tolist() == [number, 2] for number, row in rows)
    with pytest.raises(ContextError, match="closed"):
        run(lambda: plain(engine, 1))


def test_closing_on_the_loop_itself_does_not_wait_for_it(engine):
    """Threads compute, so that what runs is done while the loop is held by `close`."""

    async def main():
        tasks = [asyncio.create_task(plain(engine, number)) for number in range(1, 31)]
        await ticks(3)
        engine.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for number, each in enumerate(run(main), 1):
        assert isinstance(each, ContextError) or each.tolist() == [number, 2]


def test_no_threads_are_left_when_the_engine_is_closed(engine):
    before = {*threading.enumerate()}
    run(lambda: asyncio.gather(*(plain(engine, number) for number in range(1, 100))))
    engine.close()
    end = time.monotonic() + WAIT_S
    while left := {each for each in threading.enumerate() if "async" in each.name} - before:
        assert time.monotonic() < end, left
        time.sleep(0.01)

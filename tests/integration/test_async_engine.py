"""Awaited verbs on the real model: the same vectors, and a loop that is never held."""

import asyncio
import time

import numpy as np
import pytest

from embellama import (
    EmbeddingEngine,
    EmbeddingTimeoutError,
    EngineConfig,
    InputTooLongError,
    ModelConfig,
)
from embellama.embedding import BATCH_TOLERANCE
from tests.conftest import QUIET
from tests.recording import in_threads
from tests.reference_texts import SENTENCES

LAG_S = 1.0
"""Longest pause of the loop; 0.2 s were seen on 2 cores that four other programs used."""


def different(n):
    return [f"text {number} of {n}" for number in range(n)]


class Ticker:
    """A task that measures how long the loop keeps it waiting."""

    async def __aenter__(self):
        self.worst_s, self.n_ticks = 0.0, 0
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *exc_info):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _tick(self):
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            now = time.monotonic()
            self.worst_s, last = max(self.worst_s, now - last), now
            self.n_ticks += 1


def test_500_tasks_get_what_one_batch_gives(engine):
    texts = different(500)

    async def main():
        async with Ticker() as ticker:
            rows = await asyncio.gather(*(engine.aembed("minilm", text) for text in texts))
        return np.stack(rows), ticker

    before = engine.stats()["minilm"].n_batches
    rows, ticker = asyncio.run(main())
    n_batches = engine.stats()["minilm"].n_batches - before
    batch = engine.embed_batch("minilm", texts)
    assert np.abs(rows - batch).max() <= BATCH_TOLERANCE["F16"]
    assert n_batches < 250  # they share
    assert ticker.worst_s < LAG_S


def test_the_loop_is_not_held_by_a_long_batch(engine):
    texts = [" ".join(SENTENCES[start : start + 4]) for start in range(30)]

    async def main():
        began = time.monotonic()
        async with Ticker() as ticker:
            vectors = await engine.aembed_batch("minilm", texts)
        return vectors, ticker, time.monotonic() - began

    vectors, ticker, seconds = asyncio.run(main())
    # not to the bit: interactive callers of a moment ago make micro-batches small
    expected = engine.embed_batch("minilm", texts)
    assert np.abs(vectors - expected).max() <= BATCH_TOLERANCE["F16"]
    assert ticker.worst_s < max(LAG_S, seconds / 2)
    assert ticker.n_ticks > 5


def test_a_batch_is_left_when_its_time_is_up_or_its_task_is_cancelled(engine):
    texts = [
        " ".join(SENTENCES[start : start + 4]) + f" {n}" for n in range(20) for start in range(50)
    ]

    async def main():
        with pytest.raises(EmbeddingTimeoutError):
            await engine.aembed_batch("minilm", texts, timeout_s=0.1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await engine.aembed_batch("minilm", texts)
        task = asyncio.create_task(engine.aembed_batch("minilm", texts))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await engine.aembed("minilm", "still there")

    before = engine.stats()["minilm"].n_tokens
    one = asyncio.run(main())
    computed = engine.stats()["minilm"].n_tokens - before
    np.testing.assert_allclose(one, engine.embed("minilm", "still there"), atol=1e-3)
    assert computed < sum(engine.count_tokens("minilm", text) for text in texts)


def test_two_loops_and_two_threads_at_once(engine):
    texts = different(60)
    expected = engine.embed_batch("minilm", texts)

    def loop():
        async def main():
            tasks = [engine.aembed("minilm", text) for text in texts]
            return np.stack(await asyncio.gather(*tasks))

        return asyncio.run(main())

    jobs = [loop, loop, *[lambda: np.stack([engine.embed("minilm", text) for text in texts])] * 2]
    for found in in_threads(*jobs):
        assert np.abs(found - expected).max() <= BATCH_TOLERANCE["F16"]


def test_one_task_too_long_is_named_and_the_others_go_on(engine):
    async def main():
        texts = ["short", "long " * 600, "short too"]
        calls = (engine.aembed("minilm", text) for text in texts)
        return await asyncio.gather(*calls, return_exceptions=True)

    first, refused, last = asyncio.run(main())
    assert isinstance(refused, InputTooLongError)
    assert first.shape == last.shape == (384,)


def test_a_model_is_loaded_by_the_first_task_that_asks_for_it(minilm_path):
    settings = {**QUIET.model_dump(include={"n_threads", "n_contexts"}), "model_name": "m"}
    config = EngineConfig(lazy=True, models=[ModelConfig(model_path=minilm_path, **settings)])

    async def main():
        with EmbeddingEngine(config) as engine:
            return await asyncio.gather(*(engine.aembed("m", f"text {n}") for n in range(8)))

    assert {row.shape for row in asyncio.run(main())} == {(384,)}

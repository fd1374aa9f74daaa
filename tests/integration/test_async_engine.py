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
from tests.tiny_cross_encoder import DOCUMENTS, QUERY, write_cross_encoder

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


# ── the verbs that say more ──────────────────────────────────────────────────────────────────


def test_detailed_results_are_the_blocking_verbs(engine):
    long = " ".join(SENTENCES[:60])
    cases = [
        (["one text"], {}),
        (["one text"], {"precision": "ubinary", "prompt": "query: "}),
        ([engine.tokenize("minilm", "one text")], {}),
        (["short", long], {"overflow": "truncate", "max_tokens": 20}),
        ([long], {"overflow": "window", "window_overlap": 16}),
        ([], {}),
    ]

    async def main():
        return [
            await engine.aembed_detailed("minilm", texts, **options) for texts, options in cases
        ]

    for (texts, options), found in zip(cases, asyncio.run(main()), strict=True):
        own = engine.embed_detailed("minilm", texts, **options)
        np.testing.assert_array_equal(found.vectors, own.vectors)
        assert (found.texts, found.usage, found.fingerprint) == (
            own.texts,
            own.usage,
            own.fingerprint,
        )


def test_a_text_alone_is_the_same_to_the_bit_on_every_way(engine):
    """Begun by the loop, by a thread, or in a batch of one."""
    text = "The cat sat on the mat."

    async def main():
        ids = engine.tokenize("minilm", text)
        return [
            await engine.aembed("minilm", text),
            await engine.aembed("minilm", ids),
            (await engine.aembed_batch("minilm", [text]))[0],
            (await engine.aembed_detailed("minilm", [text])).vectors[0],
        ]

    own = engine.embed("minilm", text)
    for row in asyncio.run(main()):
        np.testing.assert_array_equal(row, own)


def test_token_vectors_are_the_blocking_verbs(engine):
    texts = SENTENCES[:4]
    (alone,) = asyncio.run(engine.aembed_tokens("minilm", texts[:1]))
    own = engine.embed_tokens("minilm", texts[:1])[0]
    np.testing.assert_array_equal(alone.vectors, own.vectors)
    np.testing.assert_array_equal(alone.input_ids, own.input_ids)
    assert alone.spans == own.spans
    for found, own in zip(
        asyncio.run(engine.aembed_tokens("minilm", texts, normalization="l2")),
        engine.embed_tokens("minilm", texts, normalization="l2"),
        strict=True,
    ):
        assert np.abs(found.vectors - own.vectors).max() <= BATCH_TOLERANCE["F16"]
    with pytest.raises(InputTooLongError):
        asyncio.run(engine.aembed_tokens("minilm", ["long " * 600]))


def test_pairs_are_scored_as_by_the_blocking_verb(tmp_path):
    path = write_cross_encoder(tmp_path / "bert.gguf")
    config = ModelConfig(flash_attn=False, n_threads=1)
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="bert", config=config)

        async def main():
            return await asyncio.gather(
                engine.arerank("bert", QUERY, DOCUMENTS),
                engine.arerank("bert", QUERY, DOCUMENTS, top_n=2, normalize=False),
                engine.arerank("bert", QUERY, []),
                engine.arerank("bert", QUERY, DOCUMENTS, timeout_s=0),
                return_exceptions=True,
            )

        every, best, none, late = asyncio.run(main())
        own = engine.rerank("bert", QUERY, DOCUMENTS)
        assert [each.index for each in every] == [each.index for each in own]
        np.testing.assert_allclose(
            [each.score for each in every], [each.score for each in own], atol=1e-4
        )
        assert [each.index for each in best] == [each.index for each in own[:2]]
        assert none == []
        assert isinstance(late, EmbeddingTimeoutError)

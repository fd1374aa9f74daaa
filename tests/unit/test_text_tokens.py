"""Tokens with the characters they stand for."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig, TextToken
from embellama.errors import (
    ConfigurationError,
    EmbeddingTimeoutError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.text_tokens import _tokens
from tests.tiny_cross_encoder import write_xlmr_cross_encoder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A model with a Unigram vocabulary."""
    return write_xlmr_cross_encoder(tmp_path_factory.mktemp("tokens") / "xlmr.gguf")


@pytest.fixture(scope="module")
def engine(path):
    with EmbeddingEngine() as engine:
        config = ModelConfig(n_threads=1, prompts={"asking": "is "})
        engine.load_model(path, name="xlmr", config=config)
        yield engine


def tokens(engine, text, **options):
    (found,) = engine.tokenize_detailed("xlmr", [text], **options)
    return found


def test_special_tokens_have_their_names_and_no_place(engine):
    first, *_, last = tokens(engine, "is a panda")
    assert first == TextToken(0, "<s>", True, None, None)
    assert last == TextToken(2, "</s>", True, None, None)


def test_words_are_where_they_stand(engine):
    own = tokens(engine, "is a panda", add_special_tokens=False)
    assert [(token.text, token.start, token.stop) for token in own] == [
        ("is", 0, 2),
        ("a", 3, 4),
        ("panda", 5, 10),
    ]


def test_the_prompt_is_part_of_the_text(engine):
    with_prompt = tokens(engine, "a panda", prompt_name="asking")
    assert with_prompt == tokens(engine, "is a panda")
    with pytest.raises(ConfigurationError, match="asking"):
        tokens(engine, "a panda", prompt_name="telling")


def test_ids_are_those_of_tokenize(engine):
    for special in (True, False):
        ids = engine.tokenize("xlmr", "is a panda", add_special_tokens=special)
        found = tokens(engine, "is a panda", add_special_tokens=special)
        assert [token.id for token in found] == ids.tolist()


def test_a_token_that_cannot_be_traced_back_has_its_piece_and_no_place(engine):
    """The pieces after the unknown one could stand anywhere."""
    (unknown,) = [token for token in tokens(engine, "is ß") if token.id == 3]
    assert (unknown.text, unknown.special, unknown.start, unknown.stop) == ("", False, None, None)


def test_what_cannot_be_tokenized_is_named(engine):
    with pytest.raises(InvalidInputError, match="cannot be tokenized: text 1") as caught:
        engine.tokenize_detailed("xlmr", ["a", "\ud800"])
    assert caught.value.indices == (1,)
    with pytest.raises(InvalidInputTypeError):
        engine.tokenize_detailed("xlmr", "one text")


def test_it_ends_when_its_time_is_up(engine):
    with pytest.raises(EmbeddingTimeoutError):
        engine.tokenize_detailed("xlmr", ["a", "b"], timeout_s=0.0)


def test_awaited_it_gives_the_same(engine):
    texts = ["is a panda", "", "ß"]
    awaited = asyncio.run(engine.atokenize_detailed("xlmr", texts))
    assert awaited == engine.tokenize_detailed("xlmr", texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(
            found == awaited
            for found in pool.map(lambda _: engine.tokenize_detailed("xlmr", texts), range(16))
        )


def test_its_thread_ends_when_nobody_waits_any_more(path, monkeypatch):
    begun = []

    async def gone(engine):
        loop, started = asyncio.get_running_loop(), asyncio.Event()
        over = asyncio.Event()

        def slow(tokenizer, text, names, add_special_tokens):
            begun.append(text)
            loop.call_soon_threadsafe(started.set)
            # as long as the one who asked is there
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result(10)
            return []

        monkeypatch.setattr("embellama.text_tokens._tokens", slow)
        asked = asyncio.ensure_future(engine.atokenize_detailed("xlmr", ["a", "b", "c"]))
        await started.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        over.set()
        await engine.aclose()  # which waits for what runs

    with EmbeddingEngine() as engine:
        engine.load_model(path, name="xlmr", config=ModelConfig(n_threads=1))
        asyncio.run(gone(engine))
    assert begun == ["a"]


def test_names_of_special_tokens_nobody_knows_are_empty():
    vocabulary = SimpleNamespace(
        prefix=np.array([7]),
        suffix=np.array([], dtype=np.int32),
        encode=lambda text, add_special: np.array([7, 8]),
        spans=lambda text, ids: [None, (0, 1)],
        pieces=lambda ids: [b"", b"a"],
    )
    assert _tokens(vocabulary, "a", {}, True) == [
        TextToken(7, "", True, None, None),
        TextToken(8, "a", False, 0, 1),
    ]

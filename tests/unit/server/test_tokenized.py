"""Tokens with the characters they stand for."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.errors import EmbeddingTimeoutError, InvalidInputError
from embellama.server import tokenized
from embellama.server.tokenized import TextToken, tokens_of
from tests.tiny_cross_encoder import write_xlmr_cross_encoder


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """All of a server that this needs: an engine, with a Unigram vocabulary."""
    path = write_xlmr_cross_encoder(tmp_path_factory.mktemp("tokenized") / "xlmr.gguf")
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="xlmr", config=ModelConfig(n_threads=1))
        yield SimpleNamespace(engine=engine)


def tokens(service, text, **options):
    (found,) = asyncio.run(tokens_of(service, "xlmr", [text], timeout_s=60.0, **options))
    return found


def test_special_tokens_have_their_names_and_no_place(service):
    first, *_, last = tokens(service, "is a panda")
    assert first == TextToken(0, "<s>", True, None, None)
    assert last == TextToken(2, "</s>", True, None, None)


def test_words_are_where_they_stand(service):
    own = tokens(service, "is a panda", add_special_tokens=False)
    assert [(token.text, token.start, token.stop) for token in own] == [
        ("is", 0, 2),
        ("a", 3, 4),
        ("panda", 5, 10),
    ]


def test_a_token_that_cannot_be_traced_back_has_its_piece_and_no_place(service):
    """The pieces after the unknown one could stand anywhere."""
    (unknown,) = [token for token in tokens(service, "is ß") if token.id == 3]
    assert (unknown.text, unknown.special, unknown.start, unknown.stop) == ("", False, None, None)


def test_what_cannot_be_tokenized_is_named(service):
    with pytest.raises(InvalidInputError, match="cannot be tokenized: text 1") as caught:
        asyncio.run(tokens_of(service, "xlmr", ["a", "\ud800"], timeout_s=60.0))
    assert caught.value.indices == (1,)


def test_it_ends_when_its_time_is_up(service):
    with pytest.raises(EmbeddingTimeoutError, match="0 of 2 texts are"):
        asyncio.run(tokens_of(service, "xlmr", ["a", "b"], timeout_s=0.0))


def test_its_thread_ends_when_nobody_waits_any_more(service, monkeypatch):
    begun = []

    async def gone():
        loop, started = asyncio.get_running_loop(), asyncio.Event()
        over = asyncio.Event()

        def slow(tokenizer, text, index, names, add_special_tokens):
            begun.append(index)
            loop.call_soon_threadsafe(started.set)
            # as long as the one who asked is there
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result(10)
            return []

        monkeypatch.setattr(tokenized, "_tokens", slow)
        asked = asyncio.ensure_future(tokens_of(service, "xlmr", ["a"] * 9, timeout_s=60.0))
        await started.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        over.set()
        await loop.shutdown_default_executor()

    asyncio.run(gone())
    assert begun == [0]


def test_names_of_special_tokens_nobody_knows_are_empty():
    vocabulary = SimpleNamespace(
        prefix=np.array([7]),
        suffix=np.array([], dtype=np.int32),
        encode=lambda text, add_special: np.array([7, 8]),
        spans=lambda text, ids: [None, (0, 1)],
        pieces=lambda ids: [b"", b"a"],
    )
    assert tokenized._tokens(vocabulary, "a", 0, {}, True) == [
        TextToken(7, "", True, None, None),
        TextToken(8, "a", False, 0, 1),
    ]

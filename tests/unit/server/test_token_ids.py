"""What token ids mean, with a vocabulary of bytes in place of the one that is downloaded."""

import sys

import pytest
import tiktoken
import tiktoken.registry

from embellama import ConfigurationError, InvalidInputError, MissingDependencyError
from embellama.server import token_ids
from embellama.server.token_ids import check_available, readable
from tests.byte_vocabulary import byte_vocabulary


@pytest.fixture
def vocabulary(monkeypatch):
    token_ids._encoding.cache_clear()
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", byte_vocabulary())
    yield tiktoken.get_encoding("cl100k_base")
    token_ids._encoding.cache_clear()


@pytest.mark.parametrize("meaning", ["refuse", "model", "cl100k_base"])
def test_texts_are_left_as_they_are(meaning):
    texts = ["a", "b"]
    assert readable(texts, meaning) is texts


def test_ids_are_refused_with_what_mends_it():
    with pytest.raises(InvalidInputError) as caught:
        readable(["a", [1, 2], [3]], "refuse")
    assert caught.value.indices == (1, 2)
    for word in (
        "check_embedding_ctx_length=False",
        "--token-ids cl100k_base",
        "--token-ids model",
    ):
        assert word in str(caught.value)


def test_the_models_own_go_through():
    items = [[1, 2], "a"]
    assert readable(items, "model") is items


def test_tiktokens_are_decoded(vocabulary):
    text = "Straße, 東京 🙂"
    items = [vocabulary.encode(text), "as it is", []]
    assert readable(items, "cl100k_base") == [text, "as it is", ""]


@pytest.mark.parametrize(
    "ids", [[104, 300], [2**31 - 1], [0xC3], [256]], ids=["unknown", "huge", "half", "gap"]
)
def test_ids_that_are_no_text_are_refused_with_their_place(vocabulary, ids):
    with pytest.raises(InvalidInputError, match="input 1 has ids that cl100k_base") as caught:
        readable([[104, 105], ids], "cl100k_base")
    assert caught.value.indices == (1,)


def test_the_server_starts_only_where_ids_can_be_decoded(vocabulary, monkeypatch):
    check_available("refuse")
    check_available("model")
    check_available("cl100k_base")
    token_ids._encoding.cache_clear()

    def fails():
        raise OSError("no way to the network")

    tiktoken.list_encoding_names()  # so that it knows its own
    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "cl100k_base")
    monkeypatch.setitem(tiktoken.registry.ENCODING_CONSTRUCTORS, "cl100k_base", fails)
    with pytest.raises(ConfigurationError, match="no way to the network.*TIKTOKEN_CACHE_DIR"):
        check_available("cl100k_base")


def test_tiktoken_is_an_extra(monkeypatch):
    token_ids._encoding.cache_clear()
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingDependencyError, match=r"embellama\[tiktoken\]") as caught:
        check_available("cl100k_base")
    assert caught.value.extra == "tiktoken"

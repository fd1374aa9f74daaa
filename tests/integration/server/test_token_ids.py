"""Token ids over HTTP: refused unless the server was told whose they are."""

import numpy as np
import pytest
import tiktoken.registry

from embellama.embedding import BATCH_TOLERANCE
from embellama.server import token_ids
from tests.byte_vocabulary import byte_vocabulary
from tests.integration.server.running import serving

TEXTS = ["The cat sat on the mat.", "Straße, 東京"]


def asked(server, ids, **options):
    status, value = server.json("/v1/embeddings", {"input": ids, **options})
    assert status == 200, value
    return np.float32([item["embedding"] for item in value["data"]]), value["usage"]


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]]])
def test_they_are_refused_by_default(server, ids):
    status, value = server.json("/v1/embeddings", {"input": ids})
    error = value["error"]
    assert (status, error["code"], error["param"]) == (400, "invalid_input", "input[0]")
    for words in ("check_embedding_ctx_length=False", "--token-ids cl100k_base"):
        assert words in error["message"]


def test_the_models_own(minilm_path, engine):
    with serving({"token_ids": "model"}, models={"minilm": minilm_path}) as server:
        ids = [engine.tokenize("minilm", text).tolist() for text in TEXTS]
        rows, usage = asked(server, ids)
        assert np.abs(rows - engine.embed_batch("minilm", TEXTS)).max() <= BATCH_TOLERANCE["F16"]
        assert usage["total_tokens"] == sum(map(len, ids))
        # the very ids, with nothing added to them
        one, usage = asked(server, ids[0])
        np.testing.assert_array_equal(one, [engine.embed("minilm", ids[0])])
        np.testing.assert_array_equal(one, [engine.embed("minilm", TEXTS[0])])
        assert usage["total_tokens"] == len(ids[0])
        np.testing.assert_array_equal(asked(server, TEXTS[0])[0], one)
        status, value = server.json("/v1/embeddings", {"input": [ids[0], [5, 10**6]]})
        assert (status, value["error"]["param"]) == (400, "input[1]")
        assert "1000000" in value["error"]["message"]


@pytest.fixture
def vocabulary(monkeypatch):
    token_ids._encoding.cache_clear()
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", byte_vocabulary())
    yield tiktoken.get_encoding("cl100k_base")
    token_ids._encoding.cache_clear()


def test_tiktokens_are_decoded_to_the_text_that_they_stand_for(vocabulary, minilm_path, engine):
    with serving({"token_ids": "cl100k_base"}, models={"minilm": minilm_path}) as server:
        ids = [vocabulary.encode(text) for text in TEXTS]
        rows, usage = asked(server, ids)
        assert np.abs(rows - engine.embed_batch("minilm", TEXTS)).max() <= BATCH_TOLERANCE["F16"]
        # the tokens that were embedded, which are the model's and not tiktoken's
        assert usage["total_tokens"] == sum(engine.count_tokens("minilm", text) for text in TEXTS)
        for text, given in zip(TEXTS, ids, strict=True):
            np.testing.assert_array_equal(asked(server, given)[0], [engine.embed("minilm", text)])
        for wrong in ([999], [0xE6]):  # none of its ids; half a character
            status, value = server.json("/v1/embeddings", {"input": [ids[0], wrong]})
            assert (status, value["error"]["param"]) == (400, "input[1]")
            assert "cl100k_base" in value["error"]["message"]

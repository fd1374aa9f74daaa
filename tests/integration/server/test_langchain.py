"""langchain-openai's ``OpenAIEmbeddings``, which sends tiktoken's ids unless told not to."""

import asyncio

import numpy as np
import openai
import pytest
import tiktoken.registry
from langchain_openai import OpenAIEmbeddings

from embellama.embedding import BATCH_TOLERANCE
from embellama.server import token_ids
from tests.byte_vocabulary import byte_vocabulary
from tests.integration.server.running import serving

TEXTS = ["The cat sat on the mat.", "A dog barked.", "Straße"]


@pytest.fixture
def _vocabulary(monkeypatch):
    """Give tiktoken, here and in the server, a vocabulary that needs no download."""
    token_ids._encoding.cache_clear()
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", byte_vocabulary())
    yield
    token_ids._encoding.cache_clear()


def embeddings(server, **options):
    return OpenAIEmbeddings(
        model="minilm", base_url=f"{server.url}/v1", api_key="any", max_retries=0, **options
    )


def close(rows, own):
    return np.abs(np.float32(rows) - own).max() <= BATCH_TOLERANCE["F16"]


def test_it_works_when_it_sends_text(server):
    client = embeddings(server, check_embedding_ctx_length=False)
    own = server.service.engine.embed_batch("minilm", TEXTS)
    assert close(client.embed_documents(TEXTS), own)
    query = client.embed_query(TEXTS[0])
    np.testing.assert_array_equal(
        np.float32(query), server.service.engine.embed("minilm", TEXTS[0])
    )

    async def awaited():
        rows = await client.aembed_documents(TEXTS)
        await client.async_client._client.close()
        return rows

    assert close(asyncio.run(awaited()), own)
    assert close(client.embed_documents(TEXTS, chunk_size=1), own)


@pytest.mark.usefixtures("_vocabulary")
def test_ids_are_refused_with_the_setting_that_mends_it(server):
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        embeddings(server).embed_documents(TEXTS)


@pytest.mark.usefixtures("_vocabulary")
def test_it_works_as_it_is_where_the_server_was_told(minilm_path, engine):
    with serving({"token_ids": "cl100k_base"}, models={"minilm": minilm_path}) as server:
        client = embeddings(server)
        assert close(client.embed_documents(TEXTS), engine.embed_batch("minilm", TEXTS))
        assert close([client.embed_query(TEXTS[2])], engine.embed("minilm", TEXTS[2]))

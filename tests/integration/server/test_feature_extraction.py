"""huggingface_hub's InferenceClient, as it is installed, against the server."""

import numpy as np
import pytest

from embellama import EngineConfig, ModelConfig
from tests.integration.server.running import run, serving

huggingface_hub = pytest.importorskip("huggingface_hub")

TEXT = "The cat sat on the mat."
OTHERS = ["A cat is sitting on a rug.", "Stock prices fell on Monday."]


@pytest.fixture
def client(server):
    return huggingface_hub.InferenceClient(model=server.url)


def test_a_string_gives_one_row(server, client):
    found = client.feature_extraction(TEXT)
    assert (found.shape, found.dtype) == ((1, 384), np.float32)
    np.testing.assert_array_equal(found[0], server.service.engine.embed("minilm", TEXT))


def test_a_list_gives_a_row_each_in_order(server, client):
    found = client.feature_extraction([TEXT, *OTHERS])
    own = server.service.engine.embed_batch("minilm", [TEXT, *OTHERS])
    np.testing.assert_allclose(found, own, atol=1e-5)
    assert found.shape == (3, 384)


@pytest.mark.parametrize("normalize", [True, False])
def test_normalize(server, client, normalize):
    found = client.feature_extraction(TEXT, normalize=normalize)[0]
    wanted = "l2" if normalize else "none"
    own = server.service.engine.embed("minilm", TEXT, normalization=wanted)
    np.testing.assert_array_equal(found, own)
    assert (np.linalg.norm(found) == pytest.approx(1)) == normalize


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncate(server, client, side):
    text = "first " + "word " * 600 + "last"
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        client.feature_extraction(text)
    assert caught.value.response.status_code == 413
    found = client.feature_extraction(text, truncate=True, truncation_direction=side)[0]
    own = server.service.engine.embed("minilm", text, overflow="truncate", truncate_side=side)
    np.testing.assert_array_equal(found, own)
    other = "left" if side == "right" else "right"
    cut_there = server.service.engine.embed(
        "minilm", text, overflow="truncate", truncate_side=other
    )
    assert not np.array_equal(found, cut_there)


def test_prompt_name(minilm_path):
    prompts = {"query": "query: ", "document": ""}
    model = ModelConfig(model_path=minilm_path, model_name="prompted", prompts=prompts)
    with serving(engine_config=EngineConfig(models=(model,))) as running:
        there = huggingface_hub.InferenceClient(model=running.url)
        found = there.feature_extraction(TEXT, prompt_name="query")[0]
        own = running.service.engine.embed("prompted", "query: " + TEXT, prompt="")
        np.testing.assert_array_equal(found, own)
        with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
            there.feature_extraction(TEXT, prompt_name="other")
        assert "'query', 'document'" in caught.value.response.json()["error"]


def test_encodings_and_dimensions_of_other_servers(client):
    """The client sends them to every server; the reference leaves the first out of account."""
    np.testing.assert_array_equal(
        client.feature_extraction(TEXT, encoding_format="base64"), client.feature_extraction(TEXT)
    )
    assert client.feature_extraction(TEXT, dimensions=384).shape == (1, 384)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError) as caught:
        client.feature_extraction(TEXT, dimensions=128)
    assert "does not declare any shorter length" in caught.value.response.json()["error"]


@pytest.mark.parametrize("path", ["", "/", "/similarity"])
def test_sentence_similarity(server, path):
    client = huggingface_hub.InferenceClient(model=server.url + path)
    near, far = client.sentence_similarity(TEXT, OTHERS)
    rows = server.service.engine.embed_batch("minilm", [TEXT, *OTHERS])
    np.testing.assert_allclose([near, far], rows[1:] @ rows[0], atol=1e-5)
    assert near > 0.5 > far


def test_what_is_served_and_whether_it_lives(server):
    client = huggingface_hub.InferenceClient(model=server.url, provider="hf-inference")
    assert client.get_endpoint_info()["model_id"] == "minilm"
    assert client.health_check() is True


def test_awaited(server):
    async def asked():
        async with huggingface_hub.AsyncInferenceClient(model=server.url) as client:
            return await client.feature_extraction(TEXT)

    np.testing.assert_array_equal(run(asked())[0], server.service.engine.embed("minilm", TEXT))

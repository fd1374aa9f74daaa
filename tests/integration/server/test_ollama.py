"""Ollama's API, by its own client and as its documents have it."""

import json
import subprocess
import time
from datetime import UTC, datetime, timedelta
from shutil import which

import numpy as np
import ollama
import pytest

from embellama.server.routes.ollama_models import UNKNOWN_DIGEST
from tests.integration.server.running import run, serving

TEXTS = ["The cat sat on the mat.", "Why is the sky blue?"]
LONG = "word " * 600


@pytest.fixture
def client(server):
    with ollama.Client(server.url) as client:
        yield client


def own_vectors(server, texts, **options):
    return server.service.engine.embed_batch("minilm", texts, **options)


# ── the client, unchanged ────────────────────────────────────────────────────────────────────────


def test_embed_gives_the_engines_vectors_and_counts(server, client):
    got = client.embed("minilm", TEXTS[0])
    own = server.service.engine.embed("minilm", TEXTS[0])
    np.testing.assert_array_equal(np.array(got.embeddings[0], dtype=np.float32), own)
    assert (got.model, got.prompt_eval_count) == ("minilm", 9)
    assert 0 <= got.load_duration < got.total_duration < 60e9


def test_embed_of_several_keeps_their_order(server, client):
    got = np.array(client.embed("minilm:latest", TEXTS).embeddings)
    np.testing.assert_allclose(got, own_vectors(server, TEXTS), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-6)


def test_embeddings_is_not_scaled(server, client):
    got = np.array(client.embeddings("minilm", TEXTS[0]).embedding, dtype=np.float32)
    own = server.service.engine.embed("minilm", TEXTS[0], normalization="none")
    np.testing.assert_array_equal(got, own)
    assert np.linalg.norm(got) > 1.5


def test_the_async_client(server):
    async def both():
        async with ollama.AsyncClient(server.url) as client:
            one = await client.embed("minilm", TEXTS[0])
            old = await client.embeddings("minilm", TEXTS[0])
            return one.embeddings, old.embedding, (await client.ps()).models

    vectors, raw, loaded = run(both())
    scaled = np.array(raw) / np.linalg.norm(raw)
    np.testing.assert_allclose(vectors[0], scaled, atol=1e-6)
    assert [model.name for model in loaded] == ["minilm:latest"]


@pytest.mark.parametrize("nothing", ["", []])
def test_nothing_to_embed_is_no_vector(client, nothing):
    assert list(client.embed("minilm", nothing).embeddings) == []
    assert list(client.embeddings("minilm", "").embedding) == []


def test_dimensions_are_cut_as_ollama_cuts_them(server, client):
    whole = own_vectors(server, TEXTS[:1])[0]
    for dimensions, n_expected in ((64, 64), (0, 384), (384, 384), (5000, 384), (-1, 384)):
        (got,) = client.embed("minilm", TEXTS[0], dimensions=dimensions).embeddings
        expected = whole[:n_expected] / np.linalg.norm(whole[:n_expected])
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_an_unknown_model_is_not_found(client):
    for ask in (client.embed, client.embeddings, client.show):
        with pytest.raises(ollama.ResponseError, match="there are: minilm") as caught:
            ask("nosuch")
        assert caught.value.status_code == 404


# ── what is too long ─────────────────────────────────────────────────────────────────────────────


def test_long_texts_are_cut_and_it_is_said(server):
    body = {"model": "minilm", "input": [LONG, TEXTS[0]]}
    status, headers, data = server.request("/api/embed", body)
    assert (status, headers["x-embellama-truncated"]) == (200, "1")
    got = json.loads(data)
    n_ctx = server.service.engine.get_model_info("minilm").n_ctx
    assert got["prompt_eval_count"] == n_ctx + 9
    own = own_vectors(server, [LONG, TEXTS[0]], overflow="truncate")
    np.testing.assert_allclose(got["embeddings"], own, atol=1e-5)


def test_long_texts_are_refused_where_the_client_says_so(server):
    for more in ({"truncate": False}, {"embellama": {"overflow": "error"}}):
        body = {"model": "minilm", "input": [TEXTS[0], LONG], **more}
        status, value = server.json("/api/embed", body)
        assert (status, list(value)) == (400, ["error"])
        assert "602" in value["error"]
    status, value = server.json("/api/embeddings", {"model": "minilm", "prompt": LONG})
    assert (status, "602" in value["error"]) == (400, True)


def test_num_ctx_is_a_lower_limit(server, client):
    got = client.embed("minilm", LONG, options={"num_ctx": 16, "temperature": 0.5})
    assert got.prompt_eval_count == 16
    own = own_vectors(server, [LONG], overflow="truncate", max_tokens=16)
    np.testing.assert_allclose(got.embeddings, own, atol=1e-5)
    n_ctx = server.service.engine.get_model_info("minilm").n_ctx
    for num_ctx in (8192, 0, -1, None):
        got = client.embed("minilm", LONG, options={"num_ctx": num_ctx})
        assert got.prompt_eval_count == n_ctx
    assert client.embed("minilm", LONG, options={"num_ctx": 16.0}).prompt_eval_count == 16


# ── how it is asked ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings"])
def test_curl_as_in_the_documents(server, path):
    if which("curl") is None:
        pytest.skip("needs curl")
    body = json.dumps({"model": "minilm", "input": TEXTS[0], "prompt": TEXTS[0]})
    done = subprocess.run(
        ["curl", "-sS", server.url + path, "-d", body], capture_output=True, check=True, timeout=30
    )
    value = json.loads(done.stdout)
    assert len(value.get("embedding") or value["embeddings"][0]) == 384


def test_a_page_cannot_post_a_form(server):
    body = json.dumps({"model": "minilm", "input": "x", "keep_alive": 0}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://evil.example"}
    for path in ("/api/embed", "/api/embeddings", "/api/show"):
        status, value = server.json(path, body, headers=form)
        assert (status, "as a form" in value["error"]) == (415, True)
    asked = {"Origin": "https://good.example"}  # a browser asks first, by the content type
    assert server.json("/api/embed", body.replace(b"0", b"-1"), headers=asked)[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        {"input": "x"},
        {"model": "", "input": "x"},
        {"model": "minilm", "input": 5},
        {"model": "minilm", "input": ["x", None]},
        {"model": "minilm", "input": [[1, 2]]},
        {"model": "minilm", "input": ["x", ""]},
        {"model": "minilm", "input": "x", "truncate": "no"},
        {"model": "minilm", "input": "x", "keep_alive": "soon"},
        {"model": "minilm", "input": "x", "dimensions": 1.5},
        {"model": "minilm", "input": "x", "options": {"num_ctx": 1}},
        {"model": "minilm", "input": "x", "embellama": {"unknown": 1}},
    ],
)
def test_what_cannot_be_meant_is_a_400(server, body):
    status, value = server.json("/api/embed", body)
    assert (status, list(value)) == (400, ["error"])
    assert isinstance(value["error"], str)


def test_too_many_texts_are_refused_before_anything_is_loaded(minilm_path):
    with serving({"max_texts": 2, "lazy": True}, models={"m": minilm_path}) as running:
        status, value = running.json("/api/embed", {"model": "m", "input": ["a", "b", "c"]})
        assert (status, "3 texts" in value["error"]) == (400, True)
        assert running.service.engine.list_models() == []


def test_details_on_demand(server):
    extra = {"embellama": {"details": True}}
    _, value = server.json("/api/embed", {"model": "minilm", "input": TEXTS, **extra})
    assert [text["n_tokens"] for text in value["embellama"]["texts"]] == [9, 8]
    _, value = server.json("/api/embeddings", {"model": "minilm", "prompt": TEXTS[1], **extra})
    assert [text["n_tokens"] for text in value["embellama"]["texts"]] == [8]


# ── which models there are ───────────────────────────────────────────────────────────────────────


def test_list_names_what_embed_takes(server, client):
    (model,) = client.list().models
    info = server.service.engine.get_model_info("minilm")
    assert (model.model, model.size, model.digest) == (
        "minilm:latest",
        info.size_bytes,
        info.fingerprint,
    )
    assert (model.details.family, model.details.quantization_level) == ("bert", "F16")
    assert model.modified_at <= datetime.now(UTC)
    assert len(client.embed(model.model, "x").embeddings[0]) == 384


def test_show_describes_a_model(client):
    shown = client.show("minilm")
    assert shown.modelinfo["general.architecture"] == "bert"
    assert shown.modelinfo["bert.embedding_length"] == 384
    assert (shown.capabilities, shown.details.format) == (["embedding"], "gguf")


def test_show_takes_the_old_name_and_wants_one(server):
    status, value = server.json("/api/show", {"name": "minilm"})
    assert (status, value["details"]["family"]) == (200, "bert")
    status, value = server.json("/api/show", {})
    assert (status, value) == (400, {"error": "model is required"})


def test_version(server):
    status, value = server.json("/api/version")
    assert (status, list(value)) == (200, ["version"])
    assert server.request("/api/version", method="HEAD")[0] == 200


# ── how long a model stays ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def two(minilm_path, tiny_path):
    """A server that has loaded nothing yet, and would keep what it loads for an hour."""
    config = {"lazy": True, "keep_alive_s": 3600.0, "aliases": {"all-minilm": "minilm"}}
    with serving(config, models={"minilm": minilm_path, "tiny": tiny_path}) as running:
        yield running


@pytest.fixture
def asking(two):
    """A client of that server."""
    with ollama.Client(two.url) as client:
        yield client


def names_loaded(client):
    return [model.name for model in client.ps().models]


def wait_for(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def test_models_that_were_not_loaded_are_listed_too(asking):
    listed = asking.list().models
    assert [m.model for m in listed] == ["minilm:latest", "tiny:latest", "all-minilm:latest"]
    assert {(m.size, m.digest) for m in listed} == {(0, UNKNOWN_DIGEST)}
    assert asking.show("tiny").modelinfo == {}
    assert names_loaded(asking) == []


def test_an_empty_request_loads_and_says_how_long_it_took(asking):
    assert list(asking.embed("all-minilm").embeddings) == []
    (loaded,) = asking.ps().models
    assert (loaded.name, loaded.context_length) == ("minilm:latest", 512)
    assert loaded.size > 40e6
    assert loaded.size_vram == 0
    left = loaded.expires_at - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert asking.embed("minilm", "x").load_duration < 0.1e9
    got = asking.embed("tiny", "ab")
    assert 0 < got.load_duration < got.total_duration


def test_keep_alive_is_of_that_model_from_then_on(asking):
    asking.embed("minilm", "x", keep_alive="1h30m")
    asking.embeddings("tiny", "ab", keep_alive=-1)
    asking.embed("minilm", "x")
    forever, longer = asking.ps().models
    assert (forever.name, longer.name) == ("tiny:latest", "minilm:latest")
    assert forever.expires_at.year > 2300
    left = longer.expires_at - datetime.now(UTC)
    assert timedelta(minutes=89) < left <= timedelta(minutes=90)


def test_keep_alive_0_unloads_and_the_next_load_is_as_configured(asking):
    assert len(asking.embed("minilm", "x", keep_alive=0).embeddings) == 1
    wait_for(lambda: names_loaded(asking) == [])
    asking.embed("minilm", "x")
    time.sleep(0.7)  # longer than idle models are looked for
    assert names_loaded(asking) == ["minilm:latest"]


def test_a_model_is_unloaded_when_its_time_is_up(asking):
    asking.embed("minilm", "x", keep_alive="200ms")
    assert names_loaded(asking) == ["minilm:latest"]
    wait_for(lambda: names_loaded(asking) == [])

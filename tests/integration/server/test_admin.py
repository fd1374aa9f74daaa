"""Loading, replacing and unloading while requests go on; the cache of vectors."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from embellama import EmbeddingEngine, EngineConfig
from embellama.cache import EmbeddingCache
from embellama.errors import DownloadError, GGUFFormatError, ModelLoadError, ModelNotFoundError
from tests.conftest import QUIET
from tests.integration.server.running import serving

KEY = "a-key-of-this-test"
ADMIN = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
def keyed(tiny_path):
    with serving({"api_keys": (KEY,)}, models={"tiny": tiny_path}) as running:
        yield running


def test_administration_needs_a_key(keyed, server):
    for path, body in (
        ("/admin/models", None),
        ("/admin/models/load", {"name": "tiny"}),
        ("/admin/models/unload", {"name": "tiny"}),
        ("/cache/clear", None),
    ):
        method = "GET" if path == "/admin/models" else "POST"
        assert keyed.request(path, body, method=method)[0] == 401
        status, value = server.json(path, body, method=method)
        assert status == 403
        assert "--api-key-file" in value["error"]["message"]


def test_a_model_is_unloaded_and_loaded_again_when_asked_for(keyed):
    status, value = keyed.json("/admin/models/unload", {"name": "tiny"}, headers=ADMIN)
    assert (status, value) == (200, {"name": "tiny", "unloaded": True})
    _, value = keyed.json("/admin/models", headers=ADMIN)
    assert [(each["name"], each["state"]) for each in value["models"]] == [("tiny", "unloaded")]
    status, _ = keyed.json("/v1/embeddings", {"input": "a b c"}, headers=ADMIN)
    assert status == 200
    _, value = keyed.json("/admin/models", headers=ADMIN)
    assert value["models"][0]["state"] == "loaded"
    assert value["models"][0]["memory_bytes"] > 0


def test_keep_alive_is_set_with_a_load(keyed):
    asked = {"name": "tiny", "keep_alive_s": 30}
    status, value = keyed.json("/admin/models/load", asked, headers=ADMIN)
    assert (status, value["keep_alive_s"]) == (200, 30)
    assert 25 < value["expires_in_s"] <= 30


@pytest.mark.parametrize(
    ("path", "body", "known"),
    [
        ("/admin/models/load", {"name": "tiny", "n_threads": 1}, "name, model, keep_alive_s"),
        ("/admin/models/unload", {"name": "tiny", "n_threads": 1}, "name"),
        ("/cache/warm", {"input": ["a"], "n_threads": 1}, "input, model, embellama"),
    ],
)
def test_what_would_be_without_effect_is_refused(keyed, path, body, known):
    status, value = keyed.json(path, body, headers=ADMIN)
    assert (status, value["error"]["param"]) == (400, "n_threads")
    assert value["error"]["message"] == f"n_threads: there is no such field; there are {known}"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "./x.gguf", "x.gguf", "~/x", "..\\x.gguf", "file.GGUF"]
)
def test_no_path_is_read_from_a_client(keyed, path):
    asked = {"name": "new", "model": path}
    status, value = keyed.json("/admin/models/load", asked, headers=ADMIN)
    assert (status, value["error"]["code"]) == (400, "path_refused")


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({"name": "unknown"}, 404, "to serve another one, say what it is"),
        ({"name": "new", "model": "no-such-model"}, 404, "no model named 'no-such-model'"),
        ({"name": "new", "model": "hf:bad"}, 400, "is not a reference to the hub"),
        ({"name": "../x", "model": "minilm"}, 400, "neither begins with / nor has .. in it"),
        ({"name": "/x", "model": "minilm"}, 400, "neither begins with / nor has .. in it"),
        ({"name": "a b", "model": "minilm"}, 400, "1 to 200 letters, digits"),
    ],
)
def test_what_cannot_be_loaded_is_said(keyed, asked, status, message):
    got, value = keyed.json("/admin/models/load", asked, headers=ADMIN)
    assert got == status
    assert message in value["error"]["message"]
    _, value = keyed.json("/admin/models", headers=ADMIN)
    assert [each["name"] for each in value["models"]] == ["tiny"]


def test_a_model_is_replaced_under_its_name_without_a_failed_request(minilm_path):
    statuses, stop = [], threading.Event()
    with serving({"api_keys": (KEY,)}, models={"minilm": minilm_path}) as running:

        def ask():
            while not stop.is_set():
                body = {"model": "minilm", "input": ["one text", "and another"]}
                statuses.append(running.request("/v1/embeddings", body, headers=ADMIN)[0])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            found = set()
            for model in ("minilm:BF16", "minilm:Q8_0", "minilm:BF16"):
                asked = {"name": "minilm", "model": model}
                status, value = running.json("/admin/models/load", asked, headers=ADMIN)
                assert (status, value["reference"]) == (200, model)
                body = {"input": "one text"}
                found.add(
                    running.request("/v1/embeddings", body, headers=ADMIN)[1][
                        "x-embellama-fingerprint"
                    ]
                )
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert len(found) == 2
    assert len(statuses) > 10
    assert set(statuses) == {200}


def test_a_catalogued_model_is_added_under_a_new_name(keyed, minilm_path):
    asked = {"name": "more", "model": "minilm:F16"}
    status, value = keyed.json("/admin/models/load", asked, headers=ADMIN)
    assert (status, value["state"]) == (200, "loaded")
    status, value = keyed.json("/v1/embeddings", {"model": "more", "input": "x"}, headers=ADMIN)
    assert (status, len(value["data"][0]["embedding"])) == (200, 384)


def test_vectors_are_kept_counted_warmed_and_cleared(tiny_path):
    with (
        EmbeddingCache.in_memory(max_bytes=1 << 20) as cache,
        serving({"api_keys": (KEY,)}, models={"tiny": tiny_path}, cache=cache) as running,
    ):
        body = {"input": ["a b", "b c", "a b"]}
        status, value = running.json("/cache/warm", body, headers=ADMIN)
        assert (status, value) == (200, {"n_texts": 3, "n_new": 3})
        _, value = running.json("/cache/warm", {"input": ["a b", "c"]}, headers=ADMIN)
        assert value == {"n_texts": 2, "n_new": 1}
        _, value = running.json("/cache/stats", headers=ADMIN)
        assert (value["n_entries"], value["hits"]) == (3, 1)
        asked = {"input": ["a b"], "embellama": {"details": True}}
        _, value = running.json("/v1/embeddings", asked, headers=ADMIN)
        assert value["embellama"]["texts"][0]["cached"] is True
        _, value = running.json("/cache/clear", headers=ADMIN, method="POST")
        assert value == {"cleared": 3}
        _, value = running.json("/cache/stats", headers=ADMIN)
        assert value["n_entries"] == 0


def test_without_a_cache_its_endpoints_say_how_to_have_one(keyed):
    for path, body, method in (
        ("/cache/stats", None, "GET"),
        ("/cache/clear", None, "POST"),
        ("/cache/warm", {"input": ["a"]}, "POST"),
    ):
        status, value = keyed.json(path, body, method=method, headers=ADMIN)
        assert status == 404
        assert "--cache-size" in value["error"]["message"]


def test_an_alias_is_not_loaded_and_its_model_is_named(tiny_path):
    config = {"api_keys": (KEY,), "aliases": {"other": "tiny"}}
    with serving(config, models={"tiny": tiny_path}) as running:
        for asked in ({"name": "other"}, {"name": "other", "model": "minilm:F16"}):
            status, value = running.json("/admin/models/load", asked, headers=ADMIN)
            assert (status, value["error"]["code"]) == (409, "other_name")
            assert "another name of the model 'tiny'" in value["error"]["message"]
        asked = {"name": "tiny:latest"}
        assert running.json("/admin/models/load", asked, headers=ADMIN)[0] == 200
        _, value = running.json("/admin/models", headers=ADMIN)
        assert [each["name"] for each in value["models"]] == ["tiny"]


def test_a_name_may_have_a_slash(keyed, minilm_path):
    asked = {"name": "org/more", "model": "minilm:F16"}
    assert keyed.json("/admin/models/load", asked, headers=ADMIN)[0] == 200
    assert keyed.json("/v1/models/org/more", headers=ADMIN)[1]["id"] == "org/more"


def test_what_an_administrator_cannot_load_is_no_fault_of_the_server(tiny_path, monkeypatch):
    config = {"api_keys": (KEY,)}
    with serving(config, models={"tiny": tiny_path}) as running:
        asked = {"name": "new", "model": "minilm:F16"}
        for error, status in (
            (ModelLoadError("'new' needs 9 bytes and the memory limit is 8"), 400),
            (GGUFFormatError("no magic"), 400),
            (DownloadError("the hub does not answer"), 502),
        ):

            def load(*given, error=error, **options):
                raise error

            monkeypatch.setattr(running.service.engine, "load_model", load)
            got, value = running.json("/admin/models/load", asked, headers=ADMIN)
            assert (got, value["error"]["code"]) == (status, error.code)
            assert value["error"]["message"] == str(error)


def test_models_are_listed_under_every_name_and_echo_the_one_asked_for(tiny_path):
    with serving({"aliases": {"other": "tiny"}}, models={"tiny": tiny_path}) as running:
        _, value = running.json("/v1/models")
        assert [each["id"] for each in value["data"]] == ["tiny", "other"]
        for name in ("tiny", "other", str(tiny_path)):
            status, value = running.json(f"/v1/models/{name}")
            assert (status, value["id"]) == (200, name)
        status, value = running.json("/v1/models/")
        assert (status, value["error"]["code"]) == (404, "model_not_found")


def test_who_names_no_model_gets_one_that_can_be_loaded(tiny_path, tmp_path):
    models = {"broken": tmp_path / "none.gguf", "tiny": tiny_path}
    asked = {"inputs": {"source_sentence": "a", "sentences": ["b"]}}
    with serving({"lazy": True}, models=models) as running:
        assert running.json("/similarity", asked)[0] == 200
        assert running.json("/similarity", {"model": "broken", **asked})[0] == 503
        pair = {"query": "a", "documents": ["b"]}
        assert running.json("/v1/rerank", pair)[0] == 503  # the broken one may be able


def test_models_that_push_each_other_out_answer_all_the_same(minilm_path):
    with EmbeddingEngine() as engine:
        n_bytes = engine.load_model(minilm_path, config=QUIET).memory_bytes
    limited = EngineConfig(memory_limit_bytes=int(n_bytes * 1.7))
    models = {"a": minilm_path, "b": minilm_path}
    with (
        serving({"lazy": True}, models=models, engine_config=limited) as running,
        ThreadPoolExecutor(4) as threads,
    ):
        asked = [
            threads.submit(running.json, "/v1/embeddings", {"model": name, "input": "a"})
            for name in "aabbab" * 4
        ]
        assert {each.result()[0] for each in asked} == {200}


def test_a_model_that_is_always_pushed_out_is_said(tiny_path, monkeypatch):
    async def gone(*given, **options):
        raise ModelNotFoundError("no model 'tiny' is loaded")

    with serving(models={"tiny": tiny_path}) as running:
        monkeypatch.setattr(running.service.engine, "aembed_detailed", gone)
        status, headers, data = running.request("/v1/embeddings", {"input": "a"})
        assert (status, headers["retry-after"]) == (503, "1")
        assert b"was unloaded 10 times" in data

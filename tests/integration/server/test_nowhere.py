"""Paths where nothing is."""

import pytest


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/embeddings", "/v1/embeddings"),
        ("/v1/embeddings/", "/v1/embeddings"),
        ("/embeddings/", "/v1/embeddings"),
        ("/health/", "/health"),
        ("/v1/embed", "/embed"),
    ],
)
def test_the_path_that_is_meant_is_named(server, path, meant):
    status, value = server.json(path, {"input": "x"})
    assert status == 404
    assert value["error"]["code"] == "not_found"
    assert value["error"]["message"].endswith(f"did you mean {meant}?")


@pytest.mark.parametrize("path", ["/api/pull", "/api/generate", "/api/chat", "/api/blobs/sha256:1"])
def test_what_ollama_does_besides_is_refused_in_its_form(server, path):
    status, value = server.json(path, {"model": "minilm"})
    assert status == 404
    assert "this server makes embeddings" in value["error"]


def test_other_paths_of_ollama_and_tei_have_their_forms_too(server):
    status, value = server.json("/api/nothing")
    assert (status, list(value)) == (404, ["error"])
    assert value["error"].endswith("GET /openapi.json lists what there is")
    status, value = server.json("/embed_sparse", {"inputs": "x"})
    assert (status, value["error_type"]) == (404, "Validation")
    assert "/embed_all" in value["error"]


def test_a_long_path_is_not_said_back_whole(server):
    status, value = server.json("/" + "x" * 5000, method="DELETE")
    assert status == 404
    assert len(value["error"]["message"]) < 200

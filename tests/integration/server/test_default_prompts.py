"""The prompt that the server puts in front of texts of clients that cannot choose one."""

import pytest

from embellama.errors import ConfigurationError
from tests.integration.server.running import serving

SETTINGS = '[model]\nprompts = {query = "a: ", document = "c: ", empty = ""}\n'
BARE = {"embellama": {"prompt": ""}}


@pytest.fixture
def prompted(monkeypatch, tmp_path, tiny_path):
    """Run a server whose model has prompts."""
    file = tmp_path / "embellama.toml"
    file.write_text(SETTINGS)
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))

    def start(default_prompts):
        config = {
            "default_prompts": default_prompts,
            "aliases": {"asked": "tiny", "plain": "tiny"},
        }
        return serving(config, models={"tiny": tiny_path})

    return start


def vector(running, model=None, text="ab", path="/v1/embeddings", **body):
    given = {"input": text, **({"model": model} if model else {}), **body}
    status, value = running.json(path, given)
    assert status == 200, value
    return value["data"][0]["embedding"] if "data" in value else value["embeddings"][0]


def test_who_chooses_none_gets_the_one_of_the_name_it_calls(prompted):
    with prompted({"tiny": "document", "asked": "query"}) as running:
        query = vector(running, text="a: ab", **BARE)
        document = vector(running, text="c: ab", **BARE)
        assert query != document
        for called in (None, "tiny", "plain", "tiny:latest"):
            assert vector(running, called) == document, called
        for called in ("asked", "asked:latest"):
            assert vector(running, called) == query, called
        assert vector(running, "asked", path="/api/embed") == pytest.approx(query, abs=1e-6)
        _, [of_tei] = running.json("/embed", {"inputs": "ab", "model": "asked"})
        assert of_tei == pytest.approx(query, abs=1e-6)
        compared = {"inputs": {"source_sentence": "ab", "sentences": ["ba"]}}
        _, by_alias = running.json("/similarity", compared | {"model": "asked"})
        _, by_name = running.json("/similarity", compared | {"model": "tiny"})
        assert by_alias != by_name


def test_a_request_that_chooses_wins(prompted):
    with prompted({"tiny": "document"}) as running:
        query = vector(running, text="a: ab", **BARE)
        bare = vector(running, **BARE)
        assert vector(running, embellama={"kind": "query"}) == query
        assert vector(running, embellama={"prompt_name": "query"}) == query
        assert vector(running, embellama={"prompt": "a: "}) == query
        assert vector(running, embellama={"prompt_name": "empty"}) == bare
        _, [of_tei] = running.json("/embed", {"inputs": "ab", "prompt_name": "query"})
        assert of_tei == pytest.approx(query, abs=1e-6)


def test_a_prompt_that_the_model_has_not_is_told_with_those_it_has(prompted):
    with prompted({"tiny": "qury"}) as running:
        status, value = running.json("/v1/embeddings", {"input": "a"})
        assert (status, value["error"]["code"]) == (500, "configuration")
        assert value["error"]["message"] == (
            "the server's default_prompts name 'qury' for the model 'tiny', whose prompts are: "
            "'query', 'document', 'empty'; start it with another --default-prompt, or give the "
            "model that prompt"
        )
        assert running.json("/v1/embeddings", {"input": "a", **BARE})[0] == 200


def test_a_prompt_for_a_model_that_is_not_served_is_refused_at_the_start(prompted):
    message = "default prompt 'query' is for 'e5', which is not served; there are: tiny, asked, pl"
    with pytest.raises(ConfigurationError, match=message), prompted({"e5": "query"}):
        pytest.fail("it started")

import json

import pytest


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


def fields(out):
    """Read a table of names and values; they are two spaces or more apart."""
    pairs = (line.split("  ", 1) for line in out.splitlines())
    return {name: value.strip() for name, value in pairs}


def test_a_file_is_described_without_loading(run, minilm_path):
    outcome = run("info", minilm_path)
    shown = fields(outcome.out)
    assert outcome.status == 0
    assert shown["architecture"] == "bert"
    assert shown["file type"] == "F16 (64 F32, 37 F16)"
    assert shown["context"] == "512 tokens, absolute positions"
    assert shown["pooling"] == "mean"
    assert shown["attention"] == "both ways"
    assert shown["special tokens"].startswith("bos 101 (added)")


def test_json_has_every_field(run, minilm_path):
    values = json.loads(run("info", minilm_path, "--json").out)
    assert (values["n_embd"], values["n_ctx_train"], values["file_type"]) == (384, 512, "F16")
    assert values["path"] == str(minilm_path)
    assert values["paths"] == [str(minilm_path)]
    assert "catalogue" not in values


def test_a_loaded_model_says_what_was_decided(run, minilm_path):
    shown = fields(run("info", minilm_path, "--load").out)
    assert shown["pooling"] == "mean (from: file)"
    assert shown["special tokens"] == "2 around each text"
    assert "total" in shown["load time"]
    values = json.loads(run("info", minilm_path, "--load", "--json").out)
    assert values["context_bytes"] > 0
    assert shown["fingerprint"] == values["fingerprint"]
    assert len(values["fingerprint"]) == 32


def test_a_loaded_model_shows_its_prompts(run, prompted):
    outcome = run("info", prompted, "--load")
    shown = fields(outcome.out)
    assert (shown["prompt query"], shown["prompt document"]) == ("'query: '", "'passage: '")
    assert outcome.err == ""
    values = json.loads(run("info", prompted, "--load", "--json").out)
    assert values["prompts"] == {"query": "query: ", "document": "passage: "}


def test_a_cross_encoder_is_described_too(run, cross_encoder):
    shown = fields(run("info", cross_encoder, "--load").out)
    assert shown["pooling"] == "rank (from: file)"


def test_a_model_that_is_not_stored_is_described_by_the_catalogue(run, empty_cache):
    outcome = run("info", "qwen3-embedding-0.6b", "--cache-path", empty_cache)
    shown = fields(outcome.out)
    assert outcome.status == 0
    assert shown["stored"] == "no; `embellama pull qwen3-embedding-0.6b` fetches it"
    assert shown["vectors"] == "1024 dimensions, last pooling"
    assert "prompt query" in shown
    assert not empty_cache.exists()
    as_json = run("info", "qwen3-embedding-0.6b", "--json", "--cache-path", empty_cache).out
    values = json.loads(as_json)
    assert values["path"] is None
    assert values["catalogue"]["n_embd"] == 1024


def test_what_nobody_knows_is_an_error(run, empty_cache, tmp_path):
    outcome = run("info", "hf:owner/name:Q8_0", "--cache-path", empty_cache)
    assert (outcome.status, outcome.out) == (1, "")
    assert "is not stored; fetch it with `embellama pull hf:owner/name:Q8_0`" in outcome.err
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03")
    assert run("info", broken).status == 1

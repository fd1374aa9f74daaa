import json
import os
import shutil

import pytest

from embellama.hub.store import cache_directory, list_stored


@pytest.fixture
def cache(minilm_path, tmp_path, monkeypatch):
    """A cache directory of its own with MiniLM F16 in it, and an empty cache of the hub."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    directory = tmp_path / "cache"
    (directory / "converted").mkdir(parents=True)
    for path in (minilm_path, minilm_path.with_name(minilm_path.name + ".json")):
        shutil.copy2(path, directory / "converted")
    return directory


def test_the_catalogue_says_what_is_stored(run, cache):
    outcome = run("models", "--cache-path", cache)
    rows = {line.split()[0]: line.split() for line in outcome.out.splitlines()}
    assert rows["minilm"] == ["minilm", "384", "512", "mean", "apache-2.0", "F16"]
    assert rows["bge-m3"][-1] == "-"
    assert rows["NAME"][-1] == "STORED"


def test_the_catalogue_as_json(run, cache):
    rows = json.loads(run("models", "--json", "--cache-path", cache).out)
    minilm = next(row for row in rows if row["name"] == "minilm")
    assert (minilm["n_embd"], minilm["stored"]) == (384, ["F16"])


def test_the_cache_is_listed_with_sizes(run, cache):
    outcome = run("cache", "--cache-path", cache)
    assert "minilm:F16" in outcome.out
    assert outcome.out.splitlines()[-1].startswith("1 file, 46.2 MB")
    assert run("cache", "list", "--cache-path", cache).out == outcome.out
    (row,) = json.loads(run("cache", "list", "--json", "--cache-path", cache).out)
    assert (row["name"], row["kind"]) == ("minilm:F16", "converted")
    assert os.path.getsize(row["path"]) == row["size_bytes"]


def test_an_empty_cache_says_how_to_fill_it(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    outcome = run("cache", "--cache-path", tmp_path)
    assert (outcome.status, outcome.out) == (0, "")
    assert "embellama pull minilm" in outcome.err


def test_the_directory_of_the_cache_is_printed(run, cache, monkeypatch):
    assert run("cache", "path", "--cache-path", cache).out == f"{cache}\n"
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(cache))
    assert run("cache", "path").out == f"{cache_directory()}\n"


@pytest.mark.parametrize("what", [["minilm"], ["minilm:F16"], ["--all"]])
def test_what_is_removed_is_gone(run, cache, what):
    outcome = run("cache", "remove", *what, "--cache-path", cache)
    assert (outcome.status, outcome.out) == (0, "46.2 MB freed\n")
    assert list_stored(cache) == []


def test_removal_has_to_say_what(run, cache):
    for arguments in ([], ["minilm", "--all"], ["minilm", "--hub"]):
        assert run("cache", "remove", *arguments, "--cache-path", cache).status == 2
    outcome = run("cache", "remove", "bge-m3", "--cache-path", cache)
    assert outcome.status == 1
    assert "no stored model 'bge-m3'; stored: minilm:F16" in outcome.err
    assert len(list_stored(cache)) == 1


def test_what_is_stored_is_pulled_at_once(run, cache):
    outcome = run("pull", "minilm", "--cache-path", cache, "--offline")
    assert outcome.status == 0
    assert os.path.dirname(outcome.out.strip()) == str(cache / "converted")
    assert "46.2 MB" in outcome.err


def test_one_model_that_fails_does_not_keep_the_others(run, cache):
    outcome = run("pull", "bge-small-en-v1.5", "minilm", "--cache-path", cache, "--offline")
    assert outcome.status == 1
    assert "embellama: bge-small-en-v1.5: " in outcome.err
    assert outcome.out.count(".gguf") == 1


def test_a_single_pull_that_fails_says_why(run, cache):
    outcome = run("pull", "bge-small-en-v1.5", "--cache-path", cache, "--offline")
    assert outcome.status == 1
    assert outcome.err.startswith("embellama: ")
    assert "network is switched off" in outcome.err

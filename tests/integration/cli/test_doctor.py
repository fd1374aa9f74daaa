import json
import re
import shutil

import pytest

from embellama._native.binding import open_library


def levels(out):
    return [line.split()[0] for line in out.splitlines() if line.startswith("  ")]


def test_the_machine_is_examined(run):
    outcome = run("doctor")
    assert outcome.status == int("FAIL" in levels(outcome.out))
    assert "llama-cpp-python" in outcome.out
    assert "device CPU (cpu)" in outcome.out
    assert "embellama doctor minilm" in outcome.out
    assert "  native kernels: " in outcome.out


def test_a_sound_model_passes_every_check(run, minilm_path):
    outcome = run("doctor", minilm_path)
    checked = outcome.out.partition("\nmodel ")[2]
    assert "FAIL" not in levels(checked)
    assert "pooling: mean, in the file" in checked
    assert "special tokens: bos … sep around each text" in checked
    assert "384 dimensions, length 1.000000" in checked
    assert "texts/s" in checked


@pytest.mark.parametrize("backend", ["llama", "native"])
def test_a_model_says_what_computes_it(run, minilm_path, tmp_path, monkeypatch, backend):
    if backend == "native" and open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    settings = tmp_path / "embellama.toml"
    settings.write_text(f'[model]\nbackend = "{backend}"\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(settings))
    checked = run("doctor", minilm_path).out.partition("\nmodel ")[2]
    assert "FAIL" not in levels(checked)
    name = {"llama": "llama.cpp", "native": "native ("}[backend]
    assert f"  backend: {name}" in checked
    for options in ([], ["--load"]):
        line = next(
            line
            for line in run("info", minilm_path, *options).out.splitlines()
            if line.startswith("backend ")
        )
        assert line.split(maxsplit=1)[1].startswith(name)
        as_json = json.loads(run("info", minilm_path, *options, "--json").out)
        assert as_json["backend"].startswith(name)


def test_a_model_with_prompts_is_examined_without_a_warning(run, prompted):
    outcome = run("doctor", prompted)
    assert "FAIL" not in levels(outcome.out.partition("\nmodel ")[2])
    assert outcome.err == ""


def test_a_cross_encoder_is_asked_to_order_texts(run, cross_encoder):
    checked = run("doctor", cross_encoder).out.partition("\nmodel ")[2]
    assert "pooling: rank, in the file" in checked
    # random weights order at random: whether it is a failure is checked elsewhere
    assert re.search(r"sense: scores (0\.\d\d, ){4}0\.\d\d; first comes '", checked)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_model_that_is_not_sound_fails(run, minilm_path, tmp_path, damage):
    path = tmp_path / "model.gguf"
    if damage == "cut":
        shutil.copyfile(minilm_path, path)
        with path.open("r+b") as file:
            file.truncate(10_000_000)
    outcome = run("doctor", path)
    assert outcome.status == 1
    assert levels(outcome.out.partition("\nmodel ")[2]) == ["FAIL"]


def test_a_cache_that_cannot_be_written_fails(run, tmp_path):
    not_a_directory = tmp_path / "file"
    not_a_directory.write_text("")
    outcome = run("doctor", "--cache-path", not_a_directory / "cache")
    assert outcome.status == 1
    assert "FAIL  cache: " in outcome.out

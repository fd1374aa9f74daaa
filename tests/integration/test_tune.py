import json
import re
import shutil

import pytest

from embellama._llama.model import LlamaBackend
from embellama._native.binding import open_library
from embellama.cli import main
from embellama.config import ModelConfig
from embellama.hub.resolve import resolve_model
from embellama.identity import ContentDigests
from embellama.tuning import build_for, stored_tuning
from tests.conftest import SOAK, model_file


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def minilm_cache(tmp_path, monkeypatch):
    """A cache of its own that has MiniLM, in all types that are tried where there is time."""
    types = ("F16", "F32", "BF16", "Q8_0", "Q4_0") if SOAK else ("F16",)
    paths = [model_file(file_type) for file_type in types]
    converted = tmp_path / "cache" / "converted"
    converted.mkdir(parents=True)
    for path in paths:
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy2(file, converted / file.name)
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["llama", "native"])
def backend(request, tmp_path, monkeypatch):
    """Configure each backend in turn."""
    if request.param == "native" and open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    settings = tmp_path / "embellama.toml"
    settings.write_text(f'[model]\nbackend = "{request.param}"\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(settings))
    return request.param


def kept(cache, path, n_cores):
    return stored_tuning(
        cache / "tuning",
        n_cores=n_cores,
        build=build_for(LlamaBackend().build, ModelConfig()),
        content=[ContentDigests().digest(path)],
    )


def test_tuning_a_model_keeps_what_it_found(tiny_path, cache, capsys, backend):
    status = main(["tune", str(tiny_path), "--budget-s", "2", "--threads", "2", "--json"])
    out, err = capsys.readouterr()
    assert status == 0
    found = json.loads(out)
    tuning = kept(cache, tiny_path, 2)
    assert found["path"] == str(next((cache / "tuning").glob("*.json")))
    for work in ("short", "long", "single"):
        layout = getattr(tuning.layouts, work)
        assert found["works"][work]["best"]["n_contexts"] == layout.n_contexts
        assert layout.n_contexts * layout.n_threads <= 2
        assert found["works"][work]["default_texts_per_s"] > 0
    assert (tuning.device, tuning.file_type, tuning.flash_attn) == ("CPU", None, "auto")
    others = {one["file_type"] for one in found["variants"]}
    assert others == {"F16", "BF16", "Q8_0", "Q4_0"} | ({None} if backend == "llama" else set())
    assert found["backend"].startswith("llama.cpp" if backend == "llama" else "native (")
    assert "short: 10 layouts" in err
    assert kept(cache, tiny_path, 1) is None


def test_what_was_found_is_told(tiny_path, cache, capsys, backend):
    assert main(["tune", str(tiny_path), "--budget-s", "1", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"model +tiny:F32\n", out)
    name = {"llama": "llama.cpp", "native": "native ("}[backend]
    assert re.search(rf"^backend +{re.escape(name)}", out, re.MULTILINE)
    assert f"kept for this CPU, {name}" in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["tune", "no-such.gguf"], 1, "no file 'no-such.gguf'"),
        (["tune", "no-such.gguf", "--budget-s", "0"], 2, "budget_s = 0"),
        (["tune", "no-such.gguf", "--least-cosine", "7"], 2, "least_cosine = 7"),
    ],
)
def test_what_cannot_be_tuned_is_said(cache, capsys, arguments, status, words):
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err


@pytest.mark.soak
def test_types_that_may_be_kept_are_kept_for_both_files(minilm_cache, capsys):
    """In the long form there is time to choose another type; the short one says there is not."""
    budget_s = 90.0 if SOAK else 3.0
    command = ["tune", "minilm", "--offline", "--budget-s", str(budget_s), "--json"]
    assert main([*command, *(["--allow-types"] if SOAK else [])]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "minilm"
    if SOAK:
        assert found["spent_s"] < 1.1 * budget_s
    file_type = found["tuning"]["file_type"]
    n_cores = found["works"]["single"]["default"]["n_threads"]
    own = resolve_model("minilm", offline=True).path
    assert kept(minilm_cache, own, n_cores).file_type == file_type
    assert SOAK or file_type is None
    if file_type is not None:
        other = resolve_model(f"minilm:{file_type}", offline=True).path
        assert kept(minilm_cache, other, n_cores).file_type is None
        taken = next(one for one in found["variants"] if one["file_type"] == file_type)
        assert taken["least_cosine"] >= 0.999

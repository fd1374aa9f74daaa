import io
import json
import sys

import pytest

from embellama import EngineConfig, ModelConfig
from embellama.bench import probe as probing
from embellama.bench.probe import Footprint, main, probe
from embellama.errors import ModelLoadError

CONFIG = ModelConfig(n_threads=1, tuning="off")


def test_a_model_is_measured_in_a_process_of_its_own(tiny_path):
    found = probe(tiny_path, config=CONFIG, engine=EngineConfig(lazy=True))
    assert 0 < found.load_s < 30
    assert 0 <= found.rss_bytes < 1e9


def test_what_fails_there_is_said_here(tmp_path):
    path = tmp_path / "none.gguf"
    with pytest.raises(ModelLoadError, match=r"ended with status 1: .*none\.gguf"):
        probe(path, config=CONFIG, engine=EngineConfig(lazy=True, cache_path=tmp_path))


def test_one_that_never_ends_is_ended(tiny_path, monkeypatch):
    monkeypatch.setattr(probing, "TIMEOUT_S", 0.01)
    with pytest.raises(ModelLoadError, match="had not done it after 0 s; leave this type out"):
        probe(tiny_path, config=CONFIG, engine=EngineConfig(lazy=True))


def order(path):
    return {"model": str(path), "config": {"n_threads": 1}, "cache_path": None}


def test_an_order_is_answered(tiny_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order(tiny_path))))
    assert main() == 0
    out, err = capsys.readouterr()
    assert Footprint(**json.loads(out)).load_s > 0
    assert err == ""


def test_an_order_that_cannot_be_done_is_answered_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(order(tmp_path / "none.gguf"))))
    assert main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "none.gguf" in err
    assert err.count("\n") == 1

"""`benches.native`: what it counts, and a run of the smallest kind."""

import sys

import pytest

from benches import native
from benches.native import SHAPES, Shape, batch_of, main
from benches.results import Results
from embellama._native.binding import open_library


def test_operations_are_those_of_the_matrices_and_of_attention():
    tiny = Shape(n_layers=1, n_embd=2, n_heads=1)
    # query, key, value and output are 2 x 2; up and down are 2 x 8: 48 weights
    assert tiny.flops(1) == 2 * 48 + 4 * 2
    assert tiny.flops(3) == 3 * (2 * 48 + 4 * 2 * 3)
    assert SHAPES["22M"].flops(14) == pytest.approx(14 * 2 * 10.6e6, rel=0.02)


@pytest.mark.parametrize(("length", "n_texts"), [(1, 64), (14, 18), (243, 1), (512, 1)])
def test_a_micro_batch_is_as_large_as_the_default(length, n_texts):
    batch = batch_of(length, 11)
    assert (batch.n_sequences, batch.n_tokens) == (n_texts, n_texts * length)
    assert batch.input_ids.max() < 11


def test_both_backends_are_measured(tmp_path, monkeypatch, capsys):
    if open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    monkeypatch.setitem(native.SHAPES, "tiny", Shape(n_layers=1, n_embd=64, n_heads=4))
    written = tmp_path / "out.json"
    options = ["--sizes", "tiny", "--lengths", "3", "--threads", "1,2", "--rounds", "1"]
    monkeypatch.setattr(
        sys, "argv", ["native", *options, "--round-s", "0.001", "--json", str(written)]
    )
    assert main() == 0
    figures = Results.read(written).figures
    title = "tiny, 3 tokens, 2 thr."
    ratio = figures[f"{title}, native ÷ llama"].median
    rates = {name: figures[f"{title}, {name}"].median for name in ("native", "llama")}
    assert ratio == pytest.approx(rates["native"] / rates["llama"])
    computed = figures[f"{title}, native, computed"].median
    flops = native.SHAPES["tiny"].flops(3)
    assert computed == pytest.approx(rates["native"] * flops / 1e9)
    assert "native (" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value"), [("--sizes", "7B"), ("--lengths", "513"), ("--threads", "0")]
)
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["native", option, value])
    with pytest.raises(SystemExit):
        main()
    assert option in capsys.readouterr().err

"""`benches.fidelity`: what it embeds, what it holds, and runs on models of a few kilobytes."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from benches import fidelity
from benches.fidelity import Agreement, cut, lengths_of, limit_of, main
from benches.random_models import SHAPES
from benches.results import Results
from embellama._native.binding import Kernel, open_library


def test_every_length_occurs_equally_often():
    counts = Counter(lengths_of(2000, 512))
    assert set(counts) == set(range(1, 513))
    assert set(counts.values()) == {3, 4}


def test_a_few_lengths_are_spread_from_the_shortest_to_the_longest():
    lengths = lengths_of(200, 512)
    assert (lengths[0], lengths[-1], len(set(lengths))) == (1, 512, 200)
    assert max(np.diff(lengths)) <= 3


def test_a_text_that_is_cut_keeps_its_end():
    ids = np.array([101, 5, 6, 7, 102], dtype=np.int32)
    assert [cut(ids, n).tolist() for n in (1, 2, 4, 5)] == [
        [101],
        [101, 102],
        [101, 5, 6, 102],
        ids.tolist(),
    ]
    with pytest.raises(ValueError, match="5 tokens cannot be cut to 6"):
        cut(ids, 6)


@pytest.mark.parametrize(
    ("file_type", "compute_type", "least"),
    [
        ("F32", "f32", 0.99999),
        ("F32", "bf16", 0.9999),
        ("F16", "f32", 0.9999),
        ("BF16", "bf16", 0.9999),
        ("Q8_0", "bf16", 0.999),
        ("Q8_0", "int8", 0.998),
    ],
)
def test_a_limit_is_that_of_what_rounds_most(file_type, compute_type, least):
    assert limit_of(file_type, Kernel(0, "avx2", compute_type, 8, 4)) == least


def test_the_worst_text_is_named_by_its_length():
    found = Agreement(np.array([1.0, 0.5, 0.75]), np.array([3, 7, 9]))
    assert (found.worst, found.worst_length) == (0.5, 7)
    assert "worst 0.5000000 at   7 tokens, mean 0.7500000" in str(found)
    assert np.isnan(Agreement(np.array([1.0, np.nan]), np.array([1, 2])).worst)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the bench on a shape of one small layer; returns the status and the figures."""
    if open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")

    def run(shape, *options):
        tiny = replace(SHAPES[shape], n_layers=1, n_embd=64, n_heads=2, n_ff=96)
        monkeypatch.setitem(fidelity.SHAPES, shape, tiny)
        written = tmp_path / "out.json"
        given = ["--shape", shape, "--texts", "4", "--exact", "2", "--scalar-texts", "1"]
        monkeypatch.setattr(sys, "argv", ["fidelity", *given, *options, "--json", str(written)])
        return main(), Results.read(written).figures

    return run


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_on_every_kernel(run, shape):
    status, figures = run(shape, "--types", "F32,Q8_0")
    assert status == 0
    for kernel in open_library().kernels:
        for reference in ("", ", to double precision"):
            figure = figures[f"{shape}, Q8_0 on {kernel}{reference}: 1 − worst cosine"]
            assert 1e-7 < figure.median < 1e-3


def test_a_cosine_below_its_limit_is_a_failure(run, monkeypatch, capsys):
    for file_type in ("F32", "BF16"):  # of what is multiplied, and of the file
        monkeypatch.setitem(fidelity.LIMITS, file_type, 0.99999999)
    for compute_type in fidelity.COMPUTED:
        monkeypatch.setitem(fidelity.COMPUTED, compute_type, 0.99999999)
    status, _ = run("e5", "--types", "BF16", "--kernels", "scalar")
    assert status == 1
    told = capsys.readouterr().out
    assert told.count("BELOW 1") == 4  # both scalar kernels, to both references
    assert "avx" not in told.split("\n", 1)[1]


def test_files_that_are_not_known_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fidelity", "--types", "F32,Q4_0"])
    with pytest.raises(SystemExit):
        main()
    assert "no file type 'Q4_0' here; there are F32, F16, BF16, Q8_0" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--texts", "--exact", "--scalar-texts"])
def test_at_least_one_text_is_wanted_of_each_kind(option, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fidelity", option, "0"])
    with pytest.raises(SystemExit):
        main()
    assert f"{option} 0: at least 1 is needed" in capsys.readouterr().err

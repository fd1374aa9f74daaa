"""`benches.native_ops`: what it counts, and a run of the program it compiles."""

import shutil
import sys

import pytest

from benches import native_ops
from benches.native import SHAPES, Shape
from benches.native_ops import STEPS, BuildError, Round, build, flops_of_steps, main, rows_of
from benches.results import Results
from embellama._native.binding import open_library
from tests.conftest import SOAK


@pytest.mark.parametrize("shape", SHAPES.values())
@pytest.mark.parametrize("lengths", [(16,), (3, 14, 243)])
def test_operations_of_the_steps_are_those_of_the_texts(shape, lengths):
    counted = flops_of_steps(shape, lengths)
    assert sum(counted) == sum(shape.flops(length) for length in lengths)
    counted_none = [name for name, flops in zip(STEPS, counted, strict=True) if not flops]
    assert counted_none == ["embedding, pooling", "norms"]


def test_a_row_is_the_middle_round_and_its_share_of_the_limit():
    rounds = [
        Round((1.0, 2.0, 3.0, 4.0, 1.0, 5.0, 4.0), 20.0, limit)
        for limit in (90.0, 100.0, 80.0)  # a limit is the most that was reached
    ]
    rounds[0] = Round((9.0,) * 7, 99.0, 90.0)
    rows, limit = rows_of(rounds, (0, 100, 60, 100, 0, 250, 200))
    assert limit == 100.0
    assert [row.seconds for row in rows] == [1.0, 2.0, 3.0, 4.0, 1.0, 5.0, 4.0]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert [row.rate for row in rows] == [None, 50.0, 20.0, 25.0, None, 50.0, 50.0]
    assert rows[1].of_limit == 0.5
    assert "50% of the limit" in str(rows[1])
    assert "limit" not in str(rows[0])


def test_without_cmake_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match="cmake is not on PATH"):
        build(tmp_path)


def test_sources_that_do_not_compile_are_told_of(monkeypatch, tmp_path, capsys):
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake: it compiles the program")
    monkeypatch.setattr(native_ops, "SOURCES", tmp_path / "nothing")
    monkeypatch.setattr(sys, "argv", ["native_ops", "--build", str(tmp_path / "build")])
    assert main() == 2
    assert "nothing" in capsys.readouterr().err


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_every_kernel_is_timed(monkeypatch, tmp_path):
    if shutil.which("cmake") is None or shutil.which("c++") is None or open_library() is None:
        pytest.skip("needs cmake and a C++ compiler: they make the program, and the native kernels")
    # without optimisation it is compiled in a third of the time
    time_ops = build(tmp_path / "build", "Release" if SOAK else "Debug")
    monkeypatch.setattr(native_ops, "build", lambda folder: time_ops)
    monkeypatch.setitem(native_ops.SHAPES, "tiny", Shape(n_layers=2, n_embd=64, n_heads=2))
    monkeypatch.setitem(native_ops.BATCHES, "few", (3, 40))
    size, batch = ("22M", "short") if SOAK else ("tiny", "few")
    written = tmp_path / "out.json"
    options = ["--shapes", size, "--batches", batch, "--seconds", "1" if SOAK else "0.01"]
    monkeypatch.setattr(sys, "argv", ["native_ops", *options, "--json", str(written)])
    assert main() == 0
    figures = Results.read(written).figures
    limits = [name for name in figures if name.endswith(", limit")]
    kernels = [one for one in open_library().kernels if one.isa != "scalar"]
    assert limits == [f"{size}, {batch}, {kernel}, limit" for kernel in kernels]
    for title in (name.removesuffix(", limit") for name in limits):
        steps = sum(figures[f"{title}, {step}"].median for step in STEPS)
        whole = figures[f"{title}, all of it"].median
        # the clock between steps takes time too, which is seen where they are as short as here
        assert steps == pytest.approx(whole, rel=0.2 if SOAK else 0.9)


@pytest.mark.parametrize(("option", "value"), [("--shapes", "7B"), ("--batches", "long")])
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["native_ops", option, value])
    with pytest.raises(SystemExit):
        main()
    assert f"'{value}'; there are" in capsys.readouterr().err

import io
from dataclasses import replace

import pytest
from rich.console import Console

from embellama.cli.bench_tables import rendered
from tests.unit.bench.findings_made_up import bench_findings, type_findings


def shown(findings, width=120):
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, force_terminal=False)
    for part in rendered(findings):
        console.print(part)
    return out.getvalue()


TYPES = (
    type_findings("F32", size=90_000_000, rates={"short": 1234.0, "long": 5.25, "own": 99.9}),
    type_findings("Q8_0", size=25_000_000, cosine=0.99966, rates={"short": 1.0, "own": 1.0,
                                                                  "long": 1.0}),
)  # fmt: skip


def test_every_type_and_figure_is_there():
    text = shown(bench_findings(*TYPES))
    for words in (
        "90.0 MB", "270.0 MB", "50 ms", "64 F32, 37 Q8_0", "1,234", "5.2", "99.9", "1.00", "2.00",
        "3.00", "0.99966", "0.98966", "98.0%", "(the reference)", "Against F32", "one of yours",
        "1,200 texts: texts of mine",
    ):  # fmt: skip
        assert words in text
    assert "SPEARMAN" not in text
    assert "nDCG" not in text


def test_brackets_stay_and_control_characters_do_not():
    text = shown(bench_findings(*TYPES))
    assert "[bold]what Q8_0 does worst\ufffd[31m" in text
    assert "a [fast] one" in text
    assert "Best: F32. It [is]." in text
    assert "\x1b" not in text


def test_judgements_get_columns_and_what_failed_is_said():
    types = (type_findings("F32", spearman=0.86, ndcg_10=0.5), type_findings("F16", ndcg_10=0.25))
    text = shown(bench_findings(*types, failed={"Q4_0": "no [room]"}))
    assert "0.8600" in text
    assert "0.2500" in text
    assert "SPEARMAN" in text
    assert "Q4_0: not measured. no [room]" in text
    assert "a short one" in text


@pytest.mark.parametrize("width", [60, 80])
def test_long_texts_give_way_to_numbers(width):
    long = type_findings("Q5_K_M", cosine=0.99561)
    long = replace(long, fidelity=replace(long.fidelity, worst_text="many words " * 50))
    text = shown(bench_findings(type_findings("F32"), long), width)
    row = next(line for line in text.splitlines() if "0.99561" in line)
    assert row.split()[:4] == ["Q5_K_M", "0.99561", "0.98561", "98.0%"]
    assert row.rstrip().endswith("…")
    assert max(map(len, text.splitlines())) <= width


def test_all_speeds_fit_on_80_columns():
    rates = {"short": 11234.0, "long": 5.25, "own": 10099.9}
    text = shown(bench_findings(type_findings("Q5_K_M", rates=rates)), 80)
    row = next(line for line in text.splitlines() if "11,234" in line)
    assert row.split() == [
        "Q5_K_M", "11,234", "157,276", "5.2", "73.5", "10,100", "141,399", "1.00", "2.00", "3.00",
    ]  # fmt: skip


def test_the_head_says_what_computed():
    machine = {"CPU": "one", "backend": "native (avx512, bf16): F16; llama.cpp: Q4_0"}
    assert f"computed by {machine['backend']}\n" in shown(bench_findings(*TYPES, machine=machine))

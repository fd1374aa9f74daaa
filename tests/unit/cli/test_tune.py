from pathlib import Path

import pytest

from embellama.bench.tune_findings import TuneFindings
from embellama.bench.tune_search import Found, VariantFindings, WorkFindings
from embellama.bench.tune_speed import Variant
from embellama.cli import tune
from embellama.tuning import WORKS, Measured, Tuning
from embellama.types import Layout, Layouts

OWN = Variant()
DEFAULT, BEST = Layout(2, 1, 256), Layout(1, 2, 128)


def findings(
    *,
    variants=(),
    variant=OWN,
    takeable=(),
    flash_attn="auto",
    gains=(1.25, 1, 1),
    backend="llama.cpp",
):
    works = {}
    for work, gain in zip(WORKS, gains, strict=True):
        best = BEST if gain > 1 else DEFAULT
        measured = Measured(400.0, 400.0 * gain, gain)
        works[work] = WorkFindings(DEFAULT, best, measured, {DEFAULT: 400.0}, {}, 9)
    tuning = Tuning(
        layouts=Layouts(*[works[work].best for work in WORKS]),
        flash_attn=flash_attn,
        file_type=variant.file_type,
        device="CPU",
        measured={work: works[work].measured for work in WORKS},
        created="2026-01-02T03:04:05+00:00",
    )
    found = Found(works, tuple(variants), variant, 60.0)
    return TuneFindings(
        "minilm",
        "F16",
        "some CPU",
        "some build",
        backend,
        found,
        tuning,
        Path("/c/key.json"),
        takeable,
    )


def measured(file_type, gain, cosine=0.9999):
    return VariantFindings(Variant(file_type), dict.fromkeys(WORKS, gain), cosine)


@pytest.fixture
def shown(capsys):
    def show(found):
        tune._show(found)
        return capsys.readouterr().out.splitlines()

    return show


def test_each_work_is_told_with_its_gain(shown):
    lines = shown(findings())
    assert lines[0].split() == ["model", "minilm:F16"]
    heading = next(line for line in lines if line.startswith("WORK"))
    short, long, _ = lines[lines.index(heading) + 1 :][:3]
    assert str(BEST) in short
    assert short.split()[-3:] == ["500.0", "+25.0", "%"]
    assert "the default" in long
    assert long.endswith("+0.0 %")
    assert "kept for this CPU, llama.cpp and model: short" in lines
    assert any("/c/key.json" in line for line in lines)


def test_the_backend_is_named(shown):
    lines = shown(findings(backend="native (avx512, bf16)"))
    assert lines[2].split(maxsplit=1) == ["backend", "native (avx512, bf16)"]
    assert "kept for this CPU, native (avx512, bf16) and model: short" in lines


def test_nothing_gained_is_told(shown):
    lines = shown(findings(gains=(1.0, 1.0, 1.0)))
    assert any("the defaults, which nothing beat" in line for line in lines)


def test_a_faster_type_is_offered_with_its_fidelity(shown):
    variants = [measured("BF16", 1.5), measured("F32", 0.7), measured("Q8_0", 1.01)]
    lines = shown(findings(variants=variants, takeable=("BF16",)))
    row = next(line for line in lines if line.startswith("BF16 "))
    assert row.split()[-1] == "0.99990"
    (offer,) = [line for line in lines if "changes the vectors;" in line]
    assert offer.startswith("BF16 is +50.0 % faster")
    assert "load minilm:BF16, or tune with --allow-types" in offer
    by_speed = [line.split()[0] for line in lines if line.split()[-1:] == ["0.99990"]]
    assert by_speed == ["BF16", "Q8_0", "F32"]


def test_a_type_that_no_load_gets_is_to_be_made(shown):
    lines = shown(findings(variants=[measured("Q4_0", 2.0, None)]))
    assert any("embellama quantize" in line for line in lines)
    assert any(line.startswith("Q4_0 ") and line.endswith("unknown") for line in lines)


def test_a_type_that_is_taken_is_told_and_not_offered(shown):
    taken = measured("BF16", 1.5)
    lines = shown(findings(variants=[taken], variant=taken.variant, takeable=("BF16",)))
    assert "minilm is loaded as BF16 from now on: its vectors change" in lines
    assert not any("--allow-types" in line for line in lines)


def test_attention_that_is_taken_is_told(shown):
    exact = Variant(flash_attn=False)
    lines = shown(findings(variant=exact, flash_attn=False))
    assert any("attention not fused from now on" in line for line in lines)


def test_what_was_not_measured_is_told(shown):
    failed = VariantFindings(Variant("Q4_0"), {}, failed="no room")
    some = VariantFindings(Variant("F32"), {"short": 1.1}, 1.0)
    lines = shown(findings(variants=[failed, some]))
    assert "Q4_0: not measured (no room)" in lines
    assert any(line.split() == ["F32", "+10.0", "%", "?", "?", "1.00000"] for line in lines)

"""Long runs in a process of their own: a short form always, the long one with EMBELLAMA_SOAK=1."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from tests.conftest import SOAK, model_file

ROOT = Path(__file__).parents[2]


def run_module(module: str, *arguments: object, timeout_s: float) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.integration.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def growth(before: float, after: float) -> float:
    return (after - before) / before


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_sixteen_threads_hammering(minilm_path):
    report = run_module("hammer", *((120, 60) if SOAK else (6, 6)), minilm_path, timeout_s=280)
    assert report["errors"] == []
    assert report["wrong"] == 0
    for verb in ("embed", "batch", "load", "unload"):
        assert report["calls"][verb] > 0
    if report["held_before"] is not None:
        assert growth(report["held_before"], report["held_after"]) < 0.05, report
    early, late = median(report["rss"][:3]), median(report["rss"][3:])
    assert growth(early, late) < (0.05 if SOAK else 0.15), report


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_stream_of_very_many_texts_holds_its_memory():
    count = 200_000 if SOAK else 10_000
    report = run_module("stream_memory", count, model_file("Q8_0"), timeout_s=1700)
    assert report["n_vectors"] == count
    assert report["growth"] < 50e6, report
    assert report["before"] < 500e6, report

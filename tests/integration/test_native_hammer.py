"""Threads hammering the native kernels: 8 for 3 seconds always, 32 for a minute with soak."""

import pytest

from embellama._native.binding import open_library
from tests.conftest import SOAK, model_file
from tests.integration.test_soak import run_module

VERBS = ("embed", "batch", "awaited", "cancelled", "timed out", "load", "unload")
GROWTH_BYTES = 20e6
"""Most that memory may grow after the warm-up; a leaked micro-batch a call would be far more."""


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("file_type", "compute_type"), [("BF16", "auto"), ("Q8_0", "int8")])
def test_threads_hammer_one_engine(tiny_path, file_type, compute_type):
    library = open_library()
    if library is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    vectors = [one for one in library.kernels if one.isa != "scalar"]
    if compute_type not in ("auto", *(one.compute_type for one in vectors)):
        pytest.skip("needs a CPU with products of bytes: AVX512_VNNI or AVX-VNNI")
    seconds, warm_up_s, n_threads = (60, 10, 32) if SOAK else (3, 1, 8)
    report = run_module(
        "native_hammer",
        *(seconds, warm_up_s, n_threads, compute_type, model_file(file_type), tiny_path),
        timeout_s=280,
    )
    assert all(backend.startswith("native (") for backend in report["backends"]), report
    assert report["errors"] == []
    assert report["n_wrong"] == 0, report
    for what in (*VERBS, "given up", "over time", "not loaded"):
        assert report["calls"][what] > 0, report
    assert report["rss_after"] - report["rss_before"] < GROWTH_BYTES, report
    assert report["after"]["threads"] <= report["before"]["threads"], report
    assert report["after"]["handles"] <= report["before"]["handles"], report

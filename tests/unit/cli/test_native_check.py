from dataclasses import replace
from types import SimpleNamespace

import pytest

from embellama._native import support
from embellama._native.binding import Kernel
from embellama._native.support import find_kernel
from embellama.cli import native_check
from embellama.cli.backend_choice import expected_backend
from embellama.cli.native_check import check_backend, check_kernels, check_native_type
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata

BF16, F32 = Kernel(0, "some", "bf16", 16, 2), Kernel(1, "some", "f32", 8, 4)
SCALAR = Kernel(2, "scalar", "f32", 1, 4)


@pytest.fixture
def metadata(tiny_path):
    return read_metadata(tiny_path)


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Script which kernels were compiled; None: none."""

    def script(*kernels):
        library = SimpleNamespace(kernels=kernels, path=tmp_path / "k.so") if kernels else None
        for module in (native_check, support):
            monkeypatch.setattr(module, "open_library", lambda: library)

    return script


def info(backend="llama.cpp", *, setting="auto", n_offloaded=0, file_type="F16"):
    return SimpleNamespace(
        backend=backend,
        config=ModelConfig(backend=setting),
        pooling_type="mean",
        n_layers_offloaded=n_offloaded,
        file_type=file_type,
    )


# ── the kernels ─────────────────────────────────────────────────────────────────────────────


def test_kernels_that_are_there_are_listed_with_their_place(compiled, tmp_path):
    compiled(BF16, F32, SCALAR)
    finding = check_kernels()
    assert finding.level == "ok"
    assert finding.text == f"native kernels: some (bf16, f32); in {tmp_path / 'k.so'}"


def test_an_instruction_set_that_was_asked_for_is_told(compiled, monkeypatch):
    compiled(BF16, F32, SCALAR)
    monkeypatch.setenv("EMBELLAMA_ISA", "scalar")
    finding = check_kernels()
    assert finding.level == "note"
    assert "only scalar (f32), for EMBELLAMA_ISA is set; there are some (bf16, f32)" in finding.text
    monkeypatch.setenv("EMBELLAMA_ISA", "none")
    finding = check_kernels()
    assert finding.level == "FAIL"
    assert "EMBELLAMA_ISA = 'none', and this CPU has kernels for some, scalar" in finding.text


def test_a_cpu_without_kernels_is_told(compiled):
    compiled(SCALAR)
    finding = check_kernels()
    assert finding.level == "note"
    assert "none for this CPU" in finding.text


@pytest.mark.parametrize(
    ("there", "platform", "words"),
    [
        ("clang++", "linux", "There is a compiler now, clang++: install embellama again"),
        (None, "linux", "Get a C++ compiler (`apt install g++`"),
        (None, "darwin", "Get a C++ compiler (`xcode-select --install`)"),
        (None, "win32", "MinGW-w64 or Clang"),
        ("/opt/own-c++", "linux", "There is a compiler now, /opt/own-c++"),
    ],
)
def test_kernels_that_were_not_compiled_come_with_the_way_to_them(
    compiled, monkeypatch, there, platform, words
):
    compiled()
    monkeypatch.setenv("CXX", "/opt/own-c++")
    monkeypatch.setattr(native_check.shutil, "which", lambda name: name if name == there else None)
    monkeypatch.setattr(native_check.sys, "platform", platform)
    finding = check_kernels()
    assert finding.level == "note"
    assert "run on llama.cpp" in finding.text
    assert words in finding.text
    assert "pip install" in finding.text


def test_kernels_that_cannot_be_loaded_are_a_failure(monkeypatch):
    def refuse():
        raise ConfigurationError("they are version 0; install embellama again")

    monkeypatch.setattr(native_check, "open_library", refuse)
    finding = check_kernels()
    assert finding.level == "FAIL"
    assert "version 0; install embellama again" in finding.text


# ── a model ─────────────────────────────────────────────────────────────────────────────────


def test_a_model_on_the_kernels_is_ok(metadata):
    finding = check_backend(info("native (some, bf16)"), metadata)
    assert (finding.level, finding.text) == ("ok", "backend: native (some, bf16)")


def test_a_model_on_a_gpu_is_llamas(metadata, compiled):
    compiled(F32)
    finding = check_backend(info(n_offloaded=7), metadata)
    assert (finding.level, "GPU" in finding.text) == ("ok", True)


def test_kernels_that_fit_and_were_not_asked_for_are_offered(metadata, compiled):
    compiled(F32)
    finding = check_backend(info(setting="llama"), metadata)
    assert finding.level == "note"
    assert "for backend = 'llama' (explicit); the native kernels (some, f32) fit" in finding.text


def test_kernels_that_fit_and_were_refused_are_told(metadata, compiled):
    compiled(F32)
    finding = check_backend(info(setting="auto"), metadata)
    assert finding.level == "note"
    assert "embellama.native.refused" in finding.text


def test_what_keeps_a_model_off_the_kernels_is_told(metadata, compiled):
    compiled(F32)
    finding = check_backend(info(setting="auto"), replace(metadata, architecture="another"))
    assert finding.level == "ok"
    assert "not the native kernels: its architecture is 'another'" in finding.text
    compiled()
    finding = check_backend(info(setting="auto"), metadata)
    assert finding.level == "note"
    assert "without a C++ compiler" in finding.text


@pytest.mark.parametrize(
    ("backend", "kernels", "level", "words"),
    [
        ("native (some, f32)", [BF16, F32], "note", "F32 is multiplied in float32 here; BF16"),
        ("native (some, f32)", [F32, SCALAR], "ok", "F32 suits"),
        ("native (some, bf16)", [BF16, F32], "ok", "F32 suits"),
    ],
)
def test_a_faster_type_to_multiply_in_is_named(compiled, backend, kernels, level, words):
    compiled(*kernels)
    finding = check_native_type(info(backend, file_type="F32"))
    assert finding.level == level
    assert words in finding.text


# ── ahead of a load ─────────────────────────────────────────────────────────────────────────


def test_a_backend_is_foretold(metadata, compiled):
    compiled(BF16, F32)
    auto, native = ModelConfig(backend="auto"), ModelConfig(backend="native")
    assert expected_backend(metadata, auto, "mean") == "native (some, f32)"
    assert expected_backend(metadata, ModelConfig(backend="llama"), "mean").startswith("llama.cpp")
    assert expected_backend(metadata, auto, "rank") == "llama.cpp (it scores pairs)"
    assert expected_backend(metadata, native, "rank").startswith("none: ")
    gpu = ModelConfig(backend="auto", n_gpu_layers=3)
    assert find_kernel(metadata, gpu, "mean") == "it is meant for a GPU"
    compiled()
    assert "without a C++ compiler" in expected_backend(metadata, auto, "mean")

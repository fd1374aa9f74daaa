"""What runs natively, what does not, and why."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from embellama._native import support
from embellama._native.binding import Kernel
from embellama._native.support import choose_kernel, find_kernel, kernels_in_use, why_not
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata

WIDE = Kernel(0, "avx512", "bf16", 16)
WIDE_FLOAT = Kernel(1, "avx512", "f32", 16)
NARROW = Kernel(2, "avx2", "f32", 8)
SCALAR = Kernel(3, "scalar", "f32", 1)
ALL = (WIDE, WIDE_FLOAT, NARROW, SCALAR)


@pytest.fixture
def metadata(tiny_path):
    return read_metadata(tiny_path)


def with_type(metadata, type_name):
    name = "blk.0.ffn_up.weight"
    place = replace(metadata.tensors[name], type_name=type_name)
    return replace(metadata, tensors={**metadata.tensors, name: place})


def test_a_bert_runs(metadata):
    assert why_not(metadata, "mean") is None
    assert why_not(with_type(metadata, "Q8_0"), "cls") is None


def test_biases_of_linear_layers_may_be_missing(metadata):
    left = {name: one for name, one in metadata.tensors.items() if name != "blk.1.attn_q.bias"}
    assert why_not(replace(metadata, tensors=left), "mean") is None


@pytest.mark.parametrize(
    ("change", "pooling_type", "said"),
    [
        (lambda m: replace(m, architecture="qwen3"), "last", "architecture is 'qwen3'"),
        (lambda m: m, "rank", "it scores pairs"),
        (lambda m: replace(m, n_layer=3), "mean", "no tensor 'blk.2.attn_q.weight'"),
        (lambda m: with_type(m, "Q4_K"), "mean", "'blk.0.ffn_up.weight' is Q4_K"),
        (lambda m: replace(m, norm_eps=None), "mean", "does not say what its layer norms add"),
    ],
)
def test_why_not(metadata, change, pooling_type, said):
    assert said in why_not(change(metadata), pooling_type)


@pytest.mark.parametrize(
    ("type_name", "compute_type", "kernels", "chosen"),
    [
        ("F32", "auto", ALL, WIDE_FLOAT),
        ("F16", "auto", ALL, WIDE),
        ("F16", "auto", (NARROW, SCALAR), NARROW),
        ("F32", "bf16", ALL, WIDE),
        ("F16", "f32", ALL, WIDE_FLOAT),
    ],
)
def test_the_kernel_follows_file_and_cpu(metadata, type_name, compute_type, kernels, chosen):
    config = ModelConfig(compute_type=compute_type)
    assert choose_kernel(with_type(metadata, type_name), config, kernels) == chosen


def test_widths_that_no_kernel_divides(metadata):
    narrow = replace(metadata, head_size=8)
    assert choose_kernel(narrow, ModelConfig(), ALL) == NARROW
    odd = replace(metadata, head_size=6)
    assert "no kernel with compute_type 'auto' for widths of 64, 96 and 6" in choose_kernel(
        odd, ModelConfig(), ALL
    )
    assert "compute_type 'bf16'" in choose_kernel(narrow, ModelConfig(compute_type="bf16"), ALL)


def test_one_instruction_set_alone_where_the_environment_names_it(metadata, monkeypatch):
    half = with_type(metadata, "F16")
    monkeypatch.setenv("EMBELLAMA_ISA", "avx2")
    assert kernels_in_use(ALL) == [NARROW]
    assert choose_kernel(half, ModelConfig(), ALL) == NARROW
    assert "compute_type 'bf16'" in choose_kernel(half, ModelConfig(compute_type="bf16"), ALL)
    monkeypatch.setenv("EMBELLAMA_ISA", "scalar")
    assert choose_kernel(half, ModelConfig(), ALL) == SCALAR
    monkeypatch.setenv("EMBELLAMA_ISA", " ")
    assert choose_kernel(half, ModelConfig(), ALL) == WIDE


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_an_instruction_set_that_is_not_there_is_an_error(library, metadata, monkeypatch, backend):
    monkeypatch.setenv("EMBELLAMA_ISA", "sse9")
    with pytest.raises(
        ConfigurationError, match="EMBELLAMA_ISA = 'sse9'.*has kernels for .*scalar"
    ):
        find_kernel(metadata, ModelConfig(backend=backend), "mean")


def test_kernels_that_cannot_be_loaded_keep_nothing_from_llama_cpp(metadata, monkeypatch):
    def refuse():
        raise ConfigurationError("they are damaged")

    monkeypatch.setattr(support, "open_library", refuse)
    with capture_logs() as events:
        said = find_kernel(metadata, ModelConfig(backend="auto"), "mean")
    assert said == "they cannot be used: they are damaged"
    (event,) = events
    assert (event["event"], event["log_level"]) == ("embellama.native.unusable", "warning")
    with pytest.raises(ConfigurationError, match="they are damaged"):
        find_kernel(metadata, ModelConfig(backend="native"), "mean")


def test_locked_memory_is_left_to_llama_cpp(metadata):
    assert "use_mlock is set" in find_kernel(metadata, ModelConfig(use_mlock=True), "mean")

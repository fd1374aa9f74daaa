"""What runs natively, what does not, and why."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from embellama._native import support
from embellama._native.binding import Kernel
from embellama._native.support import (
    choose_kernel,
    find_kernel,
    fits,
    kernels_in_use,
    why_not,
)
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata

WIDE = Kernel(0, "avx512", "bf16", 16, 2)
WIDE_FLOAT = Kernel(1, "avx512", "f32", 16, 4)
WIDE_BYTES = Kernel(2, "avx512", "int8", 32, 2)
NARROW = Kernel(3, "avx2", "f32", 8, 4)
NARROW_BYTES = Kernel(4, "avx2", "int8", 32, 4)
SCALAR = Kernel(5, "scalar", "f32", 1, 4)
SCALAR_BYTES = Kernel(6, "scalar", "int8", 32, 4)
SCALARS = (SCALAR, SCALAR_BYTES)
SERVER = (WIDE, WIDE_FLOAT, WIDE_BYTES, NARROW, *SCALARS)
OLDER_SERVER = (WIDE_FLOAT, WIDE_BYTES, NARROW, *SCALARS)
LAPTOP = (NARROW, NARROW_BYTES, *SCALARS)
OLD_LAPTOP = (NARROW, *SCALARS)
"""Kernels as CPUs with bfloat16 and byte products have them, with the one, and with neither."""


@pytest.fixture
def metadata(tiny_path):
    return read_metadata(tiny_path)


def with_type(metadata, type_name, name="blk.0.ffn_up.weight"):
    place = replace(metadata.tensors[name], type_name=type_name)
    return replace(metadata, tensors={**metadata.tensors, name: place})


def of_type(metadata, type_name):
    """Make all that layers multiply of a type, heads and other widths being multiples of 32."""
    for name, place in metadata.tensors.items():
        if name.startswith("blk.") and place.shape[0] > 1:
            metadata = with_type(metadata, type_name, name)
    return replace(metadata, file_type=type_name, head_size=32)


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
        ("F32", "auto", SERVER, WIDE_FLOAT),
        ("F32", "auto", LAPTOP, NARROW),
        ("F32", "bf16", SERVER, WIDE),
        ("F16", "auto", SERVER, WIDE),
        ("F16", "auto", OLD_LAPTOP, NARROW),
        ("F16", "f32", SERVER, WIDE_FLOAT),
        ("BF16", "auto", SERVER, WIDE),
        ("BF16", "auto", OLDER_SERVER, WIDE_FLOAT),
        ("BF16", "auto", LAPTOP, NARROW),
        ("Q8_0", "auto", SERVER, WIDE),
        ("Q8_0", "auto", OLDER_SERVER, WIDE_BYTES),
        ("Q8_0", "auto", LAPTOP, NARROW_BYTES),
        ("Q8_0", "auto", OLD_LAPTOP, NARROW),
        ("Q8_0", "int8", SERVER, WIDE_BYTES),
        ("Q8_0", "f32", LAPTOP, NARROW),
    ],
)
def test_the_kernel_follows_file_and_cpu(metadata, type_name, compute_type, kernels, chosen):
    config = ModelConfig(compute_type=compute_type)
    assert choose_kernel(of_type(metadata, type_name), config, kernels) == chosen


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_bytes_are_for_files_of_bytes(metadata, type_name):
    said = choose_kernel(of_type(metadata, type_name), ModelConfig(compute_type="int8"), SERVER)
    assert "no kernel with compute_type 'int8'" in said
    assert said.endswith(f"in a file of {type_name} tensors")


@pytest.mark.parametrize(
    ("name", "type_name", "fits_still"),
    [
        ("token_embd.weight", "F16", True),
        ("blk.1.attn_q.bias", "F32", True),
        ("blk.1.attn_output_norm.weight", "F32", True),
        ("blk.1.attn_output.weight", "F16", False),
    ],
)
def test_all_that_layers_multiply_has_to_be_bytes(metadata, name, type_name, fits_still):
    mixed = with_type(of_type(metadata, "Q8_0"), type_name, name)
    assert fits(mixed, WIDE_BYTES) is fits_still
    assert fits(mixed, WIDE)


def test_blocks_of_bytes_have_to_be_whole_in_every_head(metadata):
    narrow = replace(of_type(metadata, "Q8_0"), head_size=16)
    assert choose_kernel(narrow, ModelConfig(), OLDER_SERVER) == WIDE_FLOAT
    assert "compute_type 'int8' for widths of 64, 96 and 16 in a file of Q8_0" in choose_kernel(
        narrow, ModelConfig(compute_type="int8"), SERVER
    )


def test_widths_that_no_kernel_divides(metadata):
    narrow = replace(metadata, head_size=8)
    assert choose_kernel(narrow, ModelConfig(), SERVER) == NARROW
    odd = replace(metadata, head_size=6)
    assert "no kernel with compute_type 'auto' for widths of 64, 96 and 6" in choose_kernel(
        odd, ModelConfig(), SERVER
    )
    assert "compute_type 'bf16'" in choose_kernel(narrow, ModelConfig(compute_type="bf16"), SERVER)


def test_one_instruction_set_alone_where_the_environment_names_it(metadata, monkeypatch):
    half = with_type(metadata, "F16")
    monkeypatch.setenv("EMBELLAMA_ISA", "avx2")
    assert kernels_in_use(LAPTOP) == [NARROW, NARROW_BYTES]
    assert choose_kernel(half, ModelConfig(), SERVER) == NARROW
    assert choose_kernel(of_type(metadata, "Q8_0"), ModelConfig(), LAPTOP) == NARROW_BYTES
    assert "of EMBELLAMA_ISA = avx2, with compute_type 'bf16'" in choose_kernel(
        half, ModelConfig(compute_type="bf16"), SERVER
    )
    monkeypatch.setenv("EMBELLAMA_ISA", "scalar")
    assert choose_kernel(half, ModelConfig(), SERVER) == SCALAR
    monkeypatch.setenv("EMBELLAMA_ISA", " ")
    assert choose_kernel(half, ModelConfig(), SERVER) == WIDE


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

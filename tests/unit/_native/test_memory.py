"""What memory is expected to be taken, against what the kernels say they took."""

from dataclasses import replace

import pytest

from embellama._llama.model import LlamaBackend
from embellama._native.memory import expected_shape, kernel_memory, shape_on
from embellama._native.model import NativeModel
from embellama._native.support import fits
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.hub.quantize import quantize_file
from embellama.memory_estimate import KERNEL_CONTEXT_BYTES, estimate_memory
from embellama.types import ContextOptions
from tests.architectures import bert
from tests.unit._native.test_architectures import MODELS as RELATIVES
from tests.unit._native.test_architectures import OF_WHOLE_BLOCKS

MODELS = {"bert": bert.MODELS[0], **RELATIVES}


def loaded(library, kernel, metadata):
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), "mean")
    return NativeModel(library, kernel, metadata, "mean", words)


def fitting(library, metadata):
    return [one for one in library.kernels if fits(metadata, one)]


def check_sizes(library, kernel, metadata):
    """Hold what is expected of a model and its contexts against what the library counts."""
    model = loaded(library, kernel, metadata)
    try:
        memory = kernel_memory(metadata, kernel)
        assert memory.weights_bytes == model.info.size_bytes, kernel
        for n_tokens in (1, 7, 64, 500):
            context = model.create_context(ContextOptions(n_tokens, 4, 1))
            assert memory.context_bytes(n_tokens) == context.size_bytes, (kernel, n_tokens)
            context.close()
    finally:
        model.close()


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_contexts_are_what_the_kernels_say(library, name, tmp_path):
    metadata = read_metadata(MODELS[name].write(tmp_path / "m.gguf"))
    for kernel in fitting(library, metadata):
        check_sizes(library, kernel, metadata)


@pytest.mark.parametrize("name", OF_WHOLE_BLOCKS)
def test_bytes_and_their_scales_are_counted(library, name, tmp_path):
    whole = OF_WHOLE_BLOCKS[name].write(tmp_path / "whole.gguf")
    metadata = read_metadata(quantize_file(whole, tmp_path / "m.gguf", file_type="Q8_0").path)
    kernels = [one for one in fitting(library, metadata) if one.compute_type == "int8"]
    assert kernels
    for kernel in kernels:
        check_sizes(library, kernel, metadata)


@pytest.mark.parametrize("file_type", ["F16", "Q8_0"])
def test_weights_of_other_types_are_packed_as_they_are_multiplied(
    library, tiny_path, tmp_path, file_type
):
    path = quantize_file(tiny_path, tmp_path / "m.gguf", file_type=file_type).path
    metadata = read_metadata(path)
    for kernel in fitting(library, metadata):
        model = loaded(library, kernel, metadata)
        assert kernel_memory(metadata, kernel).weights_bytes == model.info.size_bytes
        model.close()


def test_bytes_take_less_than_numbers(library, tmp_path):
    whole = OF_WHOLE_BLOCKS["nomic"].write(tmp_path / "whole.gguf")
    metadata = read_metadata(quantize_file(whole, tmp_path / "m.gguf", file_type="Q8_0").path)
    by_type = {
        one.compute_type: kernel_memory(metadata, one).weights_bytes for one in library.kernels
    }
    assert by_type["int8"] < by_type["bf16"] < by_type["f32"]


def test_more_threads_of_a_micro_batch_take_more(library, tiny_path):
    memory = kernel_memory(read_metadata(tiny_path), library.kernels[0])
    one, two, three = (memory.context_bytes(64, n_threads) for n_threads in (1, 2, 3))
    assert three - two == two - one > 0


def test_no_logits_are_counted(library, tiny_path):
    metadata = read_metadata(tiny_path)
    shape = shape_on(metadata, library.kernels[0])
    config = ModelConfig(max_batch_tokens=300, max_batch_requests=8, n_contexts=2, n_threads=1)
    estimate = estimate_memory(shape, config)
    memory = kernel_memory(metadata, library.kernels[0])
    assert estimate.weights == memory.weights_bytes
    assert estimate.outputs == 2 * 300 * metadata.n_embd * 4
    assert estimate.buffers == 2 * (memory.context_bytes(300) + KERNEL_CONTEXT_BYTES)
    of_llama = estimate_memory(shape_on(metadata, None), config)
    assert of_llama.outputs == 2 * 300 * (metadata.n_vocab + metadata.n_embd) * 4


def test_the_backend_that_a_load_would_choose_counts(library, tiny_path):
    metadata = read_metadata(tiny_path)
    assert expected_shape(metadata, ModelConfig(), "mean").kernel_memory is not None
    assert expected_shape(metadata, ModelConfig(backend="llama"), "mean").kernel_memory is None
    odd = replace(metadata, architecture="another")
    assert expected_shape(odd, ModelConfig(), "mean").kernel_memory is None

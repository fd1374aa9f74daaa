"""The estimate against what the backends allocate, and against what the operating system counts."""

import json
import subprocess
import sys

import pytest

from embellama._llama.model import LlamaBackend
from embellama._native.binding import open_library
from embellama._native.memory import expected_shape
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.memory_estimate import CONTEXT_BYTES, estimate_memory, shape_of
from embellama.types import ContextOptions
from tests.architectures import TINY_MODELS
from tests.conftest import model_file

FILL = """
import json, random, string, sys
import psutil
from embellama import EmbeddingEngine, ModelConfig

path, settings = sys.argv[1], json.loads(sys.argv[2])
letters = random.Random(5)

def text(n_tokens):
    # one letter a token, CLS and SEP
    return " ".join(letters.choices(string.ascii_lowercase, k=n_tokens - 2))

with EmbeddingEngine() as engine:
    engine.load_model(path, name="m", config=ModelConfig(**settings))
    # texts that fill the longest micro-batch, then many short ones; no two are the same
    engine.embed_batch("m", [text(settings["n_ctx"]) for _ in range(8 * settings["n_contexts"])])
    engine.embed_batch("m", [text(18) for _ in range(512)])
    print(psutil.Process().memory_info().rss)
"""


def resident_bytes(path, settings: dict) -> int:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path), json.dumps(settings)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux: RSS differs")
@pytest.mark.parametrize(
    ("file_type", "n_ctx", "max_batch_tokens", "n_contexts"),
    [
        ("F16", 64, 64, 1),
        ("F16", 256, 256, 2),
        ("F16", 128, 1024, 1),
        ("Q8_0", 64, 64, 1),
        ("Q8_0", 512, 256, 1),
        ("Q8_0", 128, 512, 3),
    ],
)
@pytest.mark.parametrize("backend", ["llama", "native"])
def test_the_estimate_is_near_what_a_process_takes(
    backend, file_type, n_ctx, max_batch_tokens, n_contexts, record_property
):
    if backend == "native" and open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    path = model_file(file_type)
    settings = {
        "n_ctx": n_ctx,
        "max_batch_tokens": max_batch_tokens,
        "n_contexts": n_contexts,
        "n_threads": 1,
        "use_gpu": False,
        "backend": backend,
    }
    config = ModelConfig(**settings)
    estimate = estimate_memory(expected_shape(read_metadata(path), config, "mean"), config).total
    taken = resident_bytes(path, settings)
    record_property("estimate / taken", round(estimate / taken, 3))
    assert 0.9 <= estimate / taken <= 1.25


@pytest.mark.parametrize("model", TINY_MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("flash_attn", ["auto", False])
def test_buffers_are_near_what_llama_cpp_allocates(model, flash_attn, tmp_path):
    metadata = read_metadata(model.write(tmp_path / "model.gguf"))
    config = ModelConfig(use_gpu=False, flash_attn=flash_attn, max_batch_tokens=1024)
    loaded = LlamaBackend().load(metadata, config, metadata.pooling_type or "mean")
    try:
        context = loaded.create_context(ContextOptions(n_tokens=1024, n_sequences=1, n_threads=1))
        allocated = context.buffers_bytes
        context.close()
    finally:
        loaded.close()
    estimate = estimate_memory(shape_of(metadata), config)
    # the outputs grow with the first full micro-batch, and llama.cpp states what it begins with
    buffers = estimate.buffers - CONTEXT_BYTES
    assert 0.85 * allocated <= buffers <= 1.2 * allocated

"""The native kernels on the real model, through the engine."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from embellama import EmbeddingEngine, EngineConfig, ModelConfig, backends
from embellama._native.binding import open_library
from embellama._native.model import NativeModel
from embellama._native.support import fits
from embellama.backends import ChosenBackend
from embellama.errors import ModelLoadError
from embellama.gguf import read_metadata
from embellama.hub.resolve import resolve_model
from embellama.loading import expected_bytes
from tests.conftest import QUIET, model_file
from tests.integration.test_reference_vectors import REFERENCE
from tests.reference_texts import SENTENCES, reference_texts

NATIVE = ModelConfig(backend="native", tuning="off")


@pytest.fixture(scope="module", autouse=True)
def kernels():
    if open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")


@pytest.fixture(scope="module")
def native():
    with EmbeddingEngine() as engine:
        engine.load_model(model_file("F16"), name="m", config=NATIVE)
        yield engine


@pytest.fixture(scope="module")
def llama():
    with EmbeddingEngine() as engine:
        engine.load_model(
            model_file("F16"), name="m", config=QUIET.model_copy(update={"backend": "llama"})
        )
        yield engine


@pytest.mark.parametrize(
    ("file_type", "least"), [("F32", 0.99999), ("F16", 0.9999), ("BF16", 0.9999), ("Q8_0", 0.999)]
)
def test_cosine_to_sentence_transformers(file_type, least):
    with np.load(REFERENCE) as data:
        vectors = data["vectors"]
    with EmbeddingEngine() as engine:
        engine.load_model(model_file(file_type), name="m", config=NATIVE)
        ours = engine.embed_batch("m", reference_texts())
    cosines = (ours.astype(np.float64) * vectors).sum(axis=1)
    assert cosines.min() >= least, f"worst text: {int(cosines.argmin())}"


def compute_types(metadata):
    """Name what kernels of this CPU multiply that take a file, the scalar ones left out."""
    kernels = [one for one in open_library().kernels if one.isa != "scalar"]
    return list(dict.fromkeys(one.compute_type for one in kernels if fits(metadata, one)))


def loads(metadata, compute_type):
    config = ModelConfig(backend="native", compute_type=compute_type)
    ChosenBackend().load(metadata, config, "mean").close()


def test_every_way_to_multiply_q8_0_agrees_with_llama_cpp():
    metadata = read_metadata(model_file("Q8_0"))
    for compute_type in compute_types(metadata):
        loads(metadata, compute_type)


@pytest.mark.parametrize("part", ["attn_q", "attn_v", "attn_output", "ffn_up", "ffn_down"])
def test_a_bias_left_out_of_one_layer_is_noticed_beside_quantized_weights(monkeypatch, part):
    def load(library, kernel, metadata, *rest, **options):
        tensors = {**metadata.tensors}
        del tensors[f"blk.3.{part}.bias"]
        return NativeModel(library, kernel, replace(metadata, tensors=tensors), *rest, **options)

    monkeypatch.setattr(backends, "NativeModel", load)
    metadata = read_metadata(model_file("Q8_0"))
    for compute_type in compute_types(metadata):
        with pytest.raises(ModelLoadError, match="agree with llama.cpp's to a cosine of 0"):
            loads(metadata, compute_type)


def test_bytes_are_as_near_to_sentence_transformers_as_llama_cpps():
    """Seen: worst text 0.9983 (llama.cpp 0.9981), mean 0.99966 (0.99955); to float32 0.9990."""
    path = model_file("Q8_0")
    if "int8" not in compute_types(read_metadata(path)):
        pytest.skip("needs a CPU with products of bytes: AVX512_VNNI or AVX-VNNI")
    configs = {
        "int8": NATIVE.model_copy(update={"compute_type": "int8"}),
        "f32": NATIVE.model_copy(update={"compute_type": "f32"}),
        "llama": QUIET.model_copy(update={"backend": "llama"}),
    }
    with np.load(REFERENCE) as data:
        exact = data["vectors"]
    with EmbeddingEngine() as engine:
        for name, config in configs.items():
            engine.load_model(path, name=name, config=config)
        rows = {name: engine.embed_batch(name, reference_texts()) for name in configs}
    ours, llamas, theirs = (
        (one.astype(np.float64) * other).sum(axis=1)
        for one, other in (
            (rows["int8"], exact),
            (rows["llama"], exact),
            (rows["int8"], rows["f32"]),
        )
    )
    assert ours.min() >= 0.998
    assert ours.mean() >= max(0.9995, llamas.mean())
    assert theirs.min() >= 0.9985


def test_a_batch_is_its_texts_alone_to_the_last_bit(native):
    together = native.embed_batch("m", SENTENCES)
    alone = np.stack([native.embed("m", text) for text in SENTENCES])
    np.testing.assert_array_equal(together, alone)


def test_it_says_what_computes_and_vectors_are_of_the_same_origin(native, llama):
    info = native.get_model_info("m")
    assert info.backend.startswith("native (")
    assert info.to_dict()["backend"] == info.backend
    assert llama.get_model_info("m").backend == "llama.cpp"
    assert info.fingerprint == llama.get_model_info("m").fingerprint
    cosines = (native.embed_batch("m", SENTENCES) * llama.embed_batch("m", SENTENCES)).sum(1)
    assert cosines.min() > 0.9999


def test_token_rows_are_those_of_llama_cpp(native, llama):
    ours = native.embed_tokens("m", SENTENCES[:3])
    theirs = llama.embed_tokens("m", SENTENCES[:3])
    for one, other in zip(ours, theirs, strict=True):
        assert (one.vectors * other.vectors).sum(axis=1).min() > 0.999


@pytest.mark.parametrize(
    ("file_type", "most"), [("F32", 1e-3), ("F16", 3e-3), ("BF16", 3e-3), ("Q8_0", 2e-2)]
)
def test_components_are_as_near_to_llama_cpps_as_the_readme_says(file_type, most):
    with EmbeddingEngine() as engine:
        for name in ("native", "llama"):
            config = QUIET.model_copy(update={"backend": name})
            engine.load_model(model_file(file_type), name=name, config=config)
        ours, theirs = (engine.embed_batch(name, reference_texts()) for name in ("native", "llama"))
    assert np.abs(ours - theirs).max() <= most


@pytest.mark.parametrize("file_type", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("backend", ["auto", "llama"])
def test_a_load_takes_what_was_expected(backend, file_type):
    config = ModelConfig(backend=backend, tuning="off")
    resolved = resolve_model(model_file(file_type))
    with EmbeddingEngine() as engine:
        info = engine.load_model(resolved.path, name="m", config=config)
    expected = expected_bytes(resolved, config)
    # of llama.cpp's the header counts too, with its vocabulary
    assert info.weights_bytes <= expected <= info.weights_bytes + (backend == "llama") * 10**6


def test_a_memory_limit_counts_packed_weights():
    path = model_file("Q8_0")
    limited = EngineConfig(memory_limit_bytes=path.stat().st_size + 10**6)
    with EmbeddingEngine(limited) as engine:
        with pytest.raises(ModelLoadError, match="the memory limit is"):
            engine.load_model(path, name="m", config=NATIVE)
        assert engine.load_model(path, name="m").backend == "llama.cpp"
        engine.load_model(path, name="m", config=ModelConfig(backend="llama"))


def test_threads_load_and_unload_while_others_embed(native):
    expected = native.embed_batch("m", SENTENCES)

    def embed():
        for number in range(40):
            at = number % len(SENTENCES)
            np.testing.assert_array_equal(native.embed("m", SENTENCES[at]), expected[at])

    def reload():
        for _ in range(3):
            native.load_model(model_file("Q8_0"), name="other", config=NATIVE)
            native.embed_batch("other", SENTENCES)
            native.unload_model("other")

    with ThreadPoolExecutor(17) as threads:
        running = [threads.submit(embed) for _ in range(16)]
        running.append(threads.submit(reload))
        for done in running:
            done.result()

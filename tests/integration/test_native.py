"""The native kernels on the real model, through the engine."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama._native.binding import open_library
from tests.conftest import model_file
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


def test_a_batch_is_its_texts_alone_to_the_last_bit(native):
    together = native.embed_batch("m", SENTENCES)
    alone = np.stack([native.embed("m", text) for text in SENTENCES])
    np.testing.assert_array_equal(together, alone)


def test_it_says_what_computes_and_vectors_are_of_the_same_origin(native, engine):
    info = native.get_model_info("m")
    assert info.backend.startswith("native (")
    assert info.to_dict()["backend"] == info.backend
    assert engine.get_model_info("minilm").backend == "llama.cpp"
    assert info.fingerprint == engine.get_model_info("minilm").fingerprint
    cosines = (native.embed_batch("m", SENTENCES) * engine.embed_batch("minilm", SENTENCES)).sum(1)
    assert cosines.min() > 0.9999


def test_token_rows_are_those_of_llama_cpp(native, engine):
    ours = native.embed_tokens("m", SENTENCES[:3])
    theirs = engine.embed_tokens("minilm", SENTENCES[:3])
    for one, other in zip(ours, theirs, strict=True):
        assert (one.vectors * other.vectors).sum(axis=1).min() > 0.999


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

"""A text alone and packed with others: the stated tolerance per file type."""

import random

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.embedding import BATCH_TOLERANCE, BATCH_TOLERANCE_QUANTIZED
from tests.conftest import QUIET, model_file
from tests.reference_texts import SENTENCES

TOLERANCE = {**BATCH_TOLERANCE, "Q8_0": BATCH_TOLERANCE_QUANTIZED}


def mixed_texts(count: int = 500) -> list[str]:
    chooser = random.Random(7)
    return [
        " ".join(chooser.choices(SENTENCES[:60], k=chooser.choice([1] * 12 + [2, 2, 3, 6, 14])))
        for _ in range(count)
    ]


@pytest.mark.parametrize("file_type", TOLERANCE)
@pytest.mark.parametrize("backend", ["llama", "auto"])
def test_batch_equals_single_over_500_texts_in_random_order(backend, file_type):
    texts = mixed_texts()
    random.Random(8).shuffle(texts)
    with EmbeddingEngine() as engine:
        config = QUIET.model_copy(update={"backend": backend})
        engine.load_model(model_file(file_type), name="m", config=config)
        batch = engine.embed_batch("m", texts)
        single = np.stack([engine.embed("m", text) for text in texts])
    assert np.abs(batch - single).max() <= TOLERANCE[file_type]
    cosines = (batch.astype(np.float64) * single).sum(axis=1)
    assert cosines.min() >= (0.9995 if file_type == "Q8_0" else 0.99998)


@pytest.fixture(scope="module", params=["llama", "auto"])
def expected(request, minilm_path):
    """What a backend makes of 40 texts; its name comes with it."""
    with EmbeddingEngine() as engine:
        config = QUIET.model_copy(update={"backend": request.param})
        engine.load_model(minilm_path, name="m", config=config)
        return request.param, engine.embed_batch("m", mixed_texts(40))


@pytest.mark.parametrize(
    "settings",
    [
        {"n_contexts": 2, "n_threads": 1},
        {"max_batch_tokens": 2048, "max_batch_requests": 256},
        {"max_batch_tokens": 1, "max_batch_requests": 1},
        {"flash_attn": False},
        {"use_mmap": False},
    ],
    ids=["two contexts", "large micro-batches", "one by one", "no flash attention", "no mmap"],
)
def test_settings_of_speed_do_not_change_the_vectors(expected, minilm_path, settings):
    backend, vectors = expected
    with EmbeddingEngine() as other:
        other.load_model(minilm_path, name="m", config=ModelConfig(backend=backend, **settings))
        got = other.embed_batch("m", mixed_texts(40))
    assert np.abs(got - vectors).max() <= TOLERANCE["F16"]

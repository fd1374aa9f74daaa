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
def test_batch_equals_single_over_500_texts_in_random_order(file_type):
    texts = mixed_texts()
    random.Random(8).shuffle(texts)
    with EmbeddingEngine() as engine:
        engine.load_model(model_file(file_type), name="m", config=QUIET)
        batch = engine.embed_batch("m", texts)
        single = np.stack([engine.embed("m", text) for text in texts])
    assert np.abs(batch - single).max() <= TOLERANCE[file_type]
    cosines = (batch.astype(np.float64) * single).sum(axis=1)
    assert cosines.min() >= (0.9995 if file_type == "Q8_0" else 0.99998)


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(n_contexts=2, n_threads=1),
        ModelConfig(max_batch_tokens=2048, max_batch_requests=256),
        ModelConfig(max_batch_tokens=1, max_batch_requests=1),
        ModelConfig(flash_attn=False),
        ModelConfig(use_mmap=False),
    ],
    ids=["two contexts", "large micro-batches", "one by one", "no flash attention", "no mmap"],
)
def test_settings_of_speed_do_not_change_the_vectors(engine, minilm_path, config):
    texts = mixed_texts(40)
    expected = engine.embed_batch("minilm", texts)
    with EmbeddingEngine() as other:
        other.load_model(minilm_path, name="m", config=config)
        got = other.embed_batch("m", texts)
    assert np.abs(got - expected).max() <= TOLERANCE["F16"]

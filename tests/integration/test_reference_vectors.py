"""The vectors against sentence-transformers' on the same weights (tests/data says how made)."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from embellama import EmbeddingEngine
from tests.conftest import QUIET, model_file
from tests.reference_texts import reference_texts

REFERENCE = Path(__file__).parents[1] / "data" / "minilm_reference.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as data:
        offsets = data["offsets"]
        ids = [data["input_ids"][a:b].tolist() for a, b in pairwise(offsets)]
        return data["vectors"], ids


def test_every_reference_text_gets_the_same_token_ids(engine, reference):
    _, ids = reference
    ours = [engine.tokenize("minilm", text).tolist() for text in reference_texts()]
    assert ours == ids
    assert max(map(len, ids)) == 512


@pytest.mark.parametrize(
    ("file_type", "least"), [("F32", 0.99999), ("F16", 0.9999), ("BF16", 0.9999), ("Q8_0", 0.998)]
)
def test_cosine_to_sentence_transformers(reference, file_type, least):
    vectors, _ = reference
    with EmbeddingEngine() as engine:
        # test_native.py does the same for the native kernels
        config = QUIET.model_copy(update={"backend": "llama"})
        engine.load_model(model_file(file_type), name="m", config=config)
        ours = engine.embed_batch("m", reference_texts())
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-6)
    cosines = (ours.astype(np.float64) * vectors).sum(axis=1)
    assert cosines.min() >= least, f"worst text: {int(cosines.argmin())}"

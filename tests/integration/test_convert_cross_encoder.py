"""A cross-encoder's folder, converted here, scores pairs as transformers does with the folder.

Source: the scores are those of tests/data/make_rerank_reference.py, for the same weights.
"""

from pathlib import Path

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.hub.convert import convert_folder
from tests.cross_encoder_folder import saved_weights, write_cross_encoder_folder
from tests.tiny_bert import tensors_of
from tests.tiny_cross_encoder import DOCUMENTS, LONG_DOCUMENT, N_EMBD, QUERY, write_cross_encoder

REFERENCE = Path(__file__).parents[1] / "data" / "rerank_reference.npz"
EXACT = ModelConfig(flash_attn=False, n_threads=1)
ALL = [*DOCUMENTS, LONG_DOCUMENT]

TOLERANCES = {"F32": 1e-4, "F16": 4e-3, "BF16": 4e-2, "Q8_0": 8e-2}
"""How far a logit may be off by the type of the weights: about twice what was seen.

0.0016 for F16, 0.017 for BF16 and 0.038 for Q8_0, a third to a half of it from rounding the weights
and the rest from llama.cpp, which rounds what it multiplies them with in the same way.
"""


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return arrays["bert_logits"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cross_encoder_folder(tmp_path_factory.mktemp("convert") / "cross-encoder")


def scores_of(path, **options):
    """Return the scores in the order of the documents, float32 (n,)."""
    with EmbeddingEngine() as engine:
        info = engine.load_model(path, name="converted", config=EXACT)
        results = engine.rerank("converted", QUERY, ALL, overflow="truncate", **options)
    assert not info.warnings
    by_index = {result.index: result.score for result in results}
    return np.array([by_index[index] for index in range(len(ALL))], dtype=np.float32)


@pytest.mark.parametrize("file_type", TOLERANCES)
def test_scores_are_those_of_transformers(folder, tmp_path, reference, file_type):
    path = convert_folder(folder, tmp_path / "m.gguf", file_type=file_type).path
    raw = scores_of(path, normalize=False)
    np.testing.assert_allclose(raw, reference, rtol=0, atol=TOLERANCES[file_type])
    scores = scores_of(path)
    steepest = 1 / 4  # of the logistic function
    np.testing.assert_allclose(
        scores, 1 / (1 + np.exp(-reference)), rtol=0, atol=steepest * TOLERANCES[file_type]
    )


def test_the_tolerances_would_show_lost_token_types():
    with np.load(REFERENCE) as arrays:
        lost = np.abs(arrays["bert_untyped_logits"] - arrays["bert_logits"])
    assert lost.min() > 2 * max(TOLERANCES.values())


def test_the_tolerances_would_show_a_lost_pooler(tmp_path, reference):
    """It is taken away here by making it the identity, which leaves the tanh."""
    weights = saved_weights()
    weights["bert.pooler.dense.weight"] = np.eye(N_EMBD, dtype=np.float32)
    source = write_cross_encoder_folder(tmp_path / "other", weights=weights)
    raw = scores_of(convert_folder(source, tmp_path / "m.gguf").path, normalize=False)
    assert np.abs(raw - reference).max() > 2 * max(TOLERANCES.values())


def test_the_file_holds_what_the_weights_do(folder, tmp_path):
    """The other file is written by the tests themselves, name by name."""
    converted = tensors_of(convert_folder(folder, tmp_path / "m.gguf", file_type="F32").path)
    written = tensors_of(write_cross_encoder(tmp_path / "written.gguf"))
    assert converted.keys() == written.keys()
    for name, tensor in written.items():
        np.testing.assert_array_equal(converted[name], tensor, err_msg=name)

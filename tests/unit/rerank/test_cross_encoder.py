"""Which heads give scores, and how those are read."""

from dataclasses import replace

import numpy as np
import pytest

from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata
from embellama.rerank.cross_encoder import CrossEncoder, cross_encoder_for
from embellama.testing import FakeVocabulary
from embellama.tokenization import Tokenizer
from tests.tiny_cross_encoder import write_cross_encoder, write_yes_no_reranker


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    return read_metadata(write_cross_encoder(tmp_path_factory.mktemp("head") / "bert.gguf"))


def found(metadata, **changes):
    metadata = replace(metadata, **changes)
    return cross_encoder_for(metadata, Tokenizer(FakeVocabulary(), metadata), lambda text: {})


def test_the_file_says_what_its_head_is(metadata, tmp_path):
    assert set(metadata.classifier) == {
        f"cls{part}.{kind}" for part in ("", ".output") for kind in ("weight", "bias")
    }
    assert (metadata.n_labels, metadata.n_token_types) == (1, 2)
    assert metadata.rerank_template is None
    yes_no = read_metadata(write_yes_no_reranker(tmp_path / "qwen3.gguf"))
    assert (yes_no.classifier, yes_no.n_labels) == (("cls.output.weight",), 2)
    assert "{query}" in yes_no.rerank_template
    assert not found(metadata).gives_probabilities
    assert found(yes_no).gives_probabilities


def test_a_whole_head_is_not_doubted_and_one_without_pooler_is(metadata):
    assert found(metadata).warnings == ()
    (warning,) = found(metadata, classifier=("cls.output.weight",)).warnings
    assert "lacks the pooler" in warning
    (warning,) = found(metadata, architecture="jina-bert-v2", classifier=("cls.weight",)).warnings
    assert "lacks the pooler" in warning


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classifier": ()}, r"has no classifier \(cls.output.weight\)"),
        ({"classifier": ("cls.weight",)}, r"has no classifier \(cls.output.weight\)"),
        ({"n_labels": 3}, "has 3 labels; a reranker of architecture 'bert' has 1"),
        ({"architecture": "qwen3"}, "has 1 labels; a reranker of architecture 'qwen3' has 2"),
        ({"architecture": "jina-bert-v2", "classifier": ()}, r"has no classifier \(cls.weight\)"),
    ],
)
def test_heads_that_give_no_score_are_refused(metadata, changes, said):
    with pytest.raises(ConfigurationError, match=said):
        found(metadata, **changes)


def scores(rows, *, normalize, gives_probabilities=False):
    reader = CrossEncoder(lambda query: None, gives_probabilities, ())
    return reader.scores(np.array(rows, dtype=np.float32), normalize=normalize)


def test_logits_become_probabilities_by_the_logistic_function():
    logits = [[-100.0], [-3.0], [0.0], [3.0], [100.0]]
    np.testing.assert_array_equal(scores(logits, normalize=False), np.ravel(logits))
    probabilities = scores(logits, normalize=True)
    assert probabilities.dtype == np.float32
    expected = 1 / (1 + np.exp(-np.ravel(logits)))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-6, atol=1e-30)


def test_probabilities_of_yes_stay_and_become_logits():
    rows = [[0.9, 0.1], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    probabilities = scores(rows, normalize=True, gives_probabilities=True)
    np.testing.assert_array_equal(probabilities, np.array(rows, np.float32)[:, 0])
    logits = scores(rows, normalize=False, gives_probabilities=True)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits[:2], [np.log(9), 0], atol=1e-5)
    assert np.isfinite(logits).all()
    assert logits[2] > 80
    assert logits[3] < -80

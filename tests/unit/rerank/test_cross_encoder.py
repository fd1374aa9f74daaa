"""Which heads give scores, and how those are read."""

from dataclasses import replace

import numpy as np
import pytest

from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata
from embellama.rerank.cross_encoder import CrossEncoder, cross_encoder_for, logistic
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


def logits_of(rows, *, gives_probabilities=False):
    reader = CrossEncoder(lambda query: None, gives_probabilities, ())
    return reader.logits(np.array(rows, dtype=np.float32))


def test_logits_are_what_the_model_gives():
    logits = logits_of([[-100.0], [0.1], [3.0]])
    assert logits.dtype == np.float64
    np.testing.assert_array_equal(logits, np.array([-100, 0.1, 3], np.float32))


def test_probabilities_of_yes_and_no_become_logits():
    logits = logits_of([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], gives_probabilities=True)
    assert logits.dtype == np.float64
    np.testing.assert_allclose(logits[:2], [np.log(9), 0], atol=1e-6)
    assert np.isfinite(logits).all()
    assert logits[2] > 100
    assert logits[3] < -100
    np.testing.assert_allclose(logistic(logits), [0.9, 0.5, 1, 0], rtol=1e-6, atol=1e-40)


@pytest.mark.parametrize("sure", [18.0, 25.0, 80.0, 100.0])
def test_no_tells_apart_what_yes_alone_does_not(sure):
    """A softmax in float32, as llama.cpp has it: "yes" is 1.0 for both."""
    no = np.exp(-np.array([sure + 0.5, sure]))
    rows = np.stack([1 / (1 + no), no / (1 + no)], axis=1).astype(np.float32)
    assert (rows[:, 0] == 1).all()
    first, second = logits_of(rows, gives_probabilities=True)
    assert first > second
    second, first = logits_of(rows[:, ::-1], gives_probabilities=True)
    assert first > second > -104


def test_the_logistic_function():
    logits = np.array([-800.0, -100.0, -3.0, 0.0, 3.0, 36.0, 800.0])
    expected = [0, np.exp(-100), np.exp(-3) / (1 + np.exp(-3)), 0.5, 1 / (1 + np.exp(-3))]
    np.testing.assert_allclose(logistic(logits)[:5], expected, rtol=1e-15, atol=0)
    assert logistic(logits)[5] < 1
    assert logistic(logits)[6] == 1


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_logistic_function_keeps_neighbouring_floats_apart(sign):
    logits = sign * np.random.RandomState(3).uniform(0.01, 22, 5000).astype(np.float32)
    above = np.nextafter(logits, np.float32(np.inf))
    assert (logistic(above.astype(np.float64)) > logistic(logits.astype(np.float64))).all()

"""Scores of pairs are those of transformers, for the same weights and texts.

Source: tests/data/make_rerank_reference.py, which runs transformers' BertForSequenceClassification
and XLMRobertaForSequenceClassification.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama import (
    ConfigurationError,
    EmbeddingEngine,
    EmptyInputError,
    InputTooLongError,
    InvalidInputTypeError,
    ModelConfig,
)
from embellama._llama.model import LlamaBackend
from embellama.gguf import read_metadata
from embellama.rerank.pairs import pair_template
from embellama.tokenization import Tokenizer
from embellama.types import ContextOptions, MicroBatch
from tests.tiny_cross_encoder import (
    BERT_HEAD,
    DOCUMENTS,
    LONG_DOCUMENT,
    QUERY,
    bert_weights,
    write_cross_encoder,
    write_xlmr_cross_encoder,
    write_yes_no_reranker,
    yes_no_head,
)

EXACT = ModelConfig(flash_attn=False, n_threads=1)
"""Flash attention keeps keys and values as half floats, which is off by up to 0.003 here."""

ALL = [*DOCUMENTS, LONG_DOCUMENT]


@pytest.fixture(scope="module")
def reference():
    with np.load(Path(__file__).parents[1] / "data" / "rerank_reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rerank")


@pytest.fixture(scope="module")
def engine(folder):
    with EmbeddingEngine() as engine:
        engine.load_model(write_cross_encoder(folder / "bert.gguf"), name="bert", config=EXACT)
        engine.load_model(write_xlmr_cross_encoder(folder / "xlmr.gguf"), name="xlmr", config=EXACT)
        yield engine


def scores_of(engine, model, documents, **options):
    """Return the scores in the order of the documents, float32 (n,)."""
    results = engine.rerank(model, QUERY, documents, **options)
    by_index = {result.index: result.score for result in results}
    return np.array([by_index[index] for index in range(len(documents))], dtype=np.float32)


def logistic(logits):
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("model", ["bert", "xlmr"])
def test_scores_are_those_of_transformers(engine, reference, model):
    raw = scores_of(engine, model, ALL, normalize=False, overflow="truncate")
    np.testing.assert_allclose(raw, reference[f"{model}_logits"], atol=1e-4)
    scores = scores_of(engine, model, ALL, overflow="truncate")
    np.testing.assert_allclose(scores, logistic(reference[f"{model}_logits"]), atol=1e-4)


@pytest.mark.parametrize("model", ["bert", "xlmr"])
def test_ranking_is_that_of_transformers(engine, reference, model):
    results = engine.rerank(model, QUERY, ALL, overflow="truncate")
    expected = np.argsort(-reference[f"{model}_logits"], kind="stable")
    assert [result.index for result in results] == expected.tolist()
    assert all(better.score >= worse.score for better, worse in pairwise(results))
    assert [result.document for result in results] == [ALL[index] for index in expected]
    assert [result.index for result in engine.rerank(model, QUERY, DOCUMENTS, top_n=2)] == [
        index for index in expected if index < len(DOCUMENTS)
    ][:2]


def test_without_token_types_the_scores_would_be_others(engine, folder, reference):
    """What llama.cpp alone computes, all tokens of type 0, is what transformers gives for that."""
    with_types, without = reference["bert_logits"], reference["bert_untyped_logits"]
    assert np.abs(with_types - without).min() > 0.2
    assert np.argsort(-with_types).tolist() != np.argsort(-without).tolist()
    offsets = reference["bert_offsets"]
    parts = np.split(reference["bert_input_ids"], offsets[1:-1])
    plain = run_once(folder / "bert.gguf", "rank", parts)[:, 0]
    np.testing.assert_allclose(plain, without, atol=1e-4)


@pytest.mark.parametrize("model", ["bert", "xlmr"])
def test_batch_equals_single(engine, model):
    together = scores_of(engine, model, list(DOCUMENTS) * 9, normalize=False)
    alone = [scores_of(engine, model, [text], normalize=False)[0] for text in DOCUMENTS]
    np.testing.assert_allclose(together, alone * 9, atol=1e-5)


def test_a_loud_feed_forward_part_shows_how_coarse_llama_cpps_gelu_is(folder, reference):
    """Its table of half floats is all that is left of a difference: see QUIET."""
    path = write_cross_encoder(folder / "loud.gguf", weights=bert_weights(1.0))
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="loud", config=EXACT)
        raw = scores_of(engine, "loud", ALL, normalize=False, overflow="truncate")
    np.testing.assert_allclose(raw, reference["bert_loud_logits"], atol=2e-3)


def test_with_settings_as_they_come(folder, reference):
    path = write_cross_encoder(folder / "default.gguf")
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="bert")
        raw = scores_of(engine, "bert", ALL, normalize=False, overflow="truncate")
    np.testing.assert_allclose(raw, reference["bert_logits"], atol=5e-3)


def test_a_file_without_its_pooler_warns(folder, reference):
    """What llama.cpp's converter makes of a BertForSequenceClassification."""
    weights = {
        name: tensor
        for name, tensor in bert_weights().items()
        if not name.startswith(BERT_HEAD["dense"])
    }
    with EmbeddingEngine() as engine, capture_logs() as events:
        path = write_cross_encoder(folder / "bare.gguf", weights=weights)
        info = engine.load_model(path, name="bare", config=EXACT)
        raw = scores_of(engine, "bare", ALL, normalize=False, overflow="truncate")
    assert any("lacks the pooler" in warning for warning in info.warnings)
    assert any("lacks the pooler" in event.get("warning", "") for event in events)
    assert np.abs(raw - reference["bert_logits"]).max() > 0.5


def run_once(path, pooling_type, sequences):
    """Run sequences through a model below the engine; float32 (n_sequences, n_out)."""
    model = LlamaBackend().load(read_metadata(path), EXACT, pooling_type)
    context = model.create_context(ContextOptions(n_tokens=1024, n_sequences=8, n_threads=1))
    rows = context.run(MicroBatch.pack(sequences))
    context.close()
    model.close()
    return rows


def test_yes_and_no_of_a_decoder_are_those_of_its_last_hidden_state(folder):
    """Its head, applied here to what the same file gives as an embedding of the filled template."""
    path = write_yes_no_reranker(folder / "yes-no.gguf")
    documents = ["the dog", "a house near the sea", "the queen had a cat and a dog"]
    metadata = read_metadata(path)
    model = LlamaBackend().load(metadata, EXACT, "rank")
    template = pair_template(metadata, Tokenizer(model.vocabulary, metadata), model.control_tokens)
    ids = [template("a cat").encode(text, room=None).input_ids for text in documents]
    model.close()
    logits = run_once(path, "last", ids) @ yes_no_head().T
    expected = logistic(logits[:, 0] - logits[:, 1])
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="yes-no", config=EXACT)
        results = engine.rerank("yes-no", "a cat", documents)
        raw = engine.rerank("yes-no", "a cat", documents, normalize=False)
    for found, wanted in ((results, expected), (raw, logits[:, 0] - logits[:, 1])):
        assert [result.index for result in found] == np.argsort(-expected).tolist()
        scores = [result.score for result in found]
        np.testing.assert_allclose(scores, np.sort(wanted)[::-1], atol=1e-4)
    assert np.ptp(expected) > 0.01


def test_no_documents_and_wrong_ones(engine):
    assert engine.rerank("bert", QUERY, []) == []
    with pytest.raises(InvalidInputTypeError):
        engine.rerank("bert", QUERY, "a panda")
    with pytest.raises(InvalidInputTypeError):
        engine.rerank("bert", None, ["a panda"])
    with pytest.raises(EmptyInputError, match="document 1"):
        engine.rerank("bert", QUERY, ["a panda", " "])
    with pytest.raises(InputTooLongError, match="document 6"):
        engine.rerank("bert", QUERY, ALL)
    with pytest.raises(ConfigurationError, match="top_n = 0"):
        engine.rerank("bert", QUERY, ["a panda"], top_n=0)


def test_a_cross_encoder_makes_no_vectors_and_an_embedder_no_scores(engine, tiny_path):
    with pytest.raises(ConfigurationError, match="bert"):
        engine.embed("bert", "a panda")
    with EmbeddingEngine() as other:
        other.load_model(tiny_path, name="tiny")
        with pytest.raises(ConfigurationError, match="makes vectors"):
            other.rerank("tiny", "a", ["b"])

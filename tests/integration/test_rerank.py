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
    EmbeddingGenerationError,
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
    WORDS,
    bert_weights,
    write_cross_encoder,
    write_xlmr_cross_encoder,
    write_yes_no_reranker,
    yes_no_head,
)

EXACT = ModelConfig(flash_attn=False, n_threads=1)
"""Says what the settings as they come mean for cross-encoders of so few positions."""

FUSED = ModelConfig(flash_attn=True, n_threads=1)
"""Keeps keys and values as half floats, which moves the logits here by 3e-4 at most."""

TOLERANCE = 1e-4
"""How near logits and scores have to be; 3e-5 was seen."""

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
    np.testing.assert_allclose(raw, reference[f"{model}_logits"], atol=TOLERANCE)
    scores = scores_of(engine, model, ALL, overflow="truncate")
    np.testing.assert_allclose(scores, logistic(reference[f"{model}_logits"]), atol=TOLERANCE)


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


WRITERS = {"bert": write_cross_encoder, "xlmr": write_xlmr_cross_encoder}


@pytest.mark.parametrize("model", WRITERS)
def test_with_settings_as_they_come(folder, reference, model):
    logits = reference[f"{model}_logits"]
    with EmbeddingEngine() as engine:
        info = engine.load_model(WRITERS[model](folder / f"{model}-default.gguf"), name=model)
        raw = scores_of(engine, model, ALL, normalize=False, overflow="truncate")
        scores = scores_of(engine, model, ALL, overflow="truncate")
        results = engine.rerank(model, QUERY, ALL, overflow="truncate")
    assert info.config.flash_attn is False
    np.testing.assert_allclose(raw, logits, atol=TOLERANCE)
    np.testing.assert_allclose(scores, logistic(logits), atol=TOLERANCE)
    assert [r.index for r in results] == np.argsort(-logits, kind="stable").tolist()


@pytest.mark.parametrize("model", WRITERS)
def test_with_fused_attention(folder, reference, model):
    with EmbeddingEngine() as engine:
        path = WRITERS[model](folder / f"{model}-fused.gguf")
        info = engine.load_model(path, name=model, config=FUSED)
        raw = scores_of(engine, model, ALL, normalize=False, overflow="truncate")
    assert info.config.flash_attn is True
    np.testing.assert_allclose(raw, reference[f"{model}_logits"], atol=1e-3)


@pytest.mark.parametrize(("n_ctx", "flash_attn"), [(1024, False), (1025, "auto")])
def test_attention_is_exact_where_memory_allows(folder, n_ctx, flash_attn):
    def change(writer):
        writer.kv_data[0]["bert.context_length"].value = n_ctx

    weights = bert_weights()
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = np.resize(weights[positions], (n_ctx, weights[positions].shape[1]))
    path = write_cross_encoder(folder / f"{n_ctx}.gguf", weights=weights, change=change)
    with EmbeddingEngine() as engine:
        assert engine.load_model(path, name="bert").config.flash_attn == flash_attn
        (result,) = engine.rerank("bert", QUERY, [LONG_DOCUMENT * 20], overflow="truncate")
    assert (result.n_tokens - result.n_dropped, 0 < result.score < 1) == (n_ctx, True)


@pytest.mark.parametrize("bias", [20, 100, -40])
def test_a_model_that_is_sure_of_everything_orders_all_the_same(folder, reference, bias):
    """Its probabilities are all 1.0, or all 1e-17, in float32."""
    weights = bert_weights()
    weights["classifier.bias"] = weights["classifier.bias"] + np.float32(bias)
    path = write_cross_encoder(folder / f"sure{bias}.gguf", weights=weights)
    expected = np.argsort(-reference["bert_logits"][: len(DOCUMENTS)], kind="stable").tolist()
    assert expected == [0, 5, 4, 2, 3, 1]
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="sure")
        for normalize in (True, False):
            results = engine.rerank("sure", QUERY, DOCUMENTS, normalize=normalize)
            assert [result.index for result in results] == expected
            best = engine.rerank("sure", QUERY, DOCUMENTS, normalize=normalize, top_n=3)
            assert best == results[:3]
        scores = [result.score for result in engine.rerank("sure", QUERY, DOCUMENTS)]
    assert all(type(score) is float and 0 <= score <= 1 for score in scores)
    if bias < 37:  # beyond, they are 1.0 in float64 too
        assert scores[0] == scores[1] > scores[2] > scores[3] > scores[4] > scores[5]


def test_a_bad_word_is_blamed_on_its_documents_alone(folder):
    weights = bert_weights()
    weights["embeddings.word_embeddings.weight"][WORDS.index("china")] = np.nan
    path = write_cross_encoder(folder / "nan.gguf", weights=weights)
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="nan")
        with pytest.raises(EmbeddingGenerationError, match="for document 2, also alone") as caught:
            engine.rerank("nan", QUERY, DOCUMENTS)
        assert (caught.value.model, caught.value.indices) == ("nan", (2,))
        others = [text for text in DOCUMENTS if "china" not in text]
        assert len(engine.rerank("nan", QUERY, others)) == 5
        statistics = engine.stats()["nan"]
    assert (statistics.n_errors, statistics.n_texts) == (1, 5)
    assert statistics.tokenize_s.p50 > 0


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
    with pytest.raises(ConfigurationError, match="normalize = 'no'"):
        engine.rerank("bert", QUERY, ["a panda"], normalize="no")


def test_a_cross_encoder_makes_no_vectors_and_an_embedder_no_scores(engine, tiny_path):
    with pytest.raises(ConfigurationError, match="bert"):
        engine.embed("bert", "a panda")
    with EmbeddingEngine() as other:
        other.load_model(tiny_path, name="tiny")
        with pytest.raises(ConfigurationError, match="makes vectors"):
            other.rerank("tiny", "a", ["b"])

"""Scores in order, and every text that cannot be scored named."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama._llama.model import LlamaBackend
from embellama.calls import Call
from embellama.config import ModelConfig
from embellama.errors import (
    BatchError,
    ConfigurationError,
    DecodeError,
    EmbeddingGenerationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
)
from embellama.gguf import read_metadata
from embellama.rerank import scoring
from embellama.rerank.cross_encoder import CrossEncoder, cross_encoder_for
from embellama.rerank.scoring import PairScores, rank
from embellama.scheduler import Scheduler
from embellama.statistics import ModelStatistics
from embellama.testing import FakeModel
from embellama.tokenization import Tokenizer
from embellama.types import ContextOptions, Layout, Layouts
from tests.tiny_cross_encoder import (
    DOCUMENTS,
    LONG_DOCUMENT,
    N_CTX,
    QUERY,
    WORDS,
    bert_weights,
    write_cross_encoder,
    write_yes_no_reranker,
)


@dataclass
class Loaded:
    """As much of a loaded model as scoring needs."""

    scheduler: Scheduler
    cross_encoder: CrossEncoder | None
    facts: SimpleNamespace
    statistics: ModelStatistics


def score_pairs(model, query, documents, **options):
    return scoring.score_pairs(model, query, documents, call=Call(), **options)


def scheduler_of(model, n_tokens):
    return Scheduler(
        model,
        name="tiny",
        options=ContextOptions(n_tokens=n_tokens, n_sequences=8, n_threads=1),
        layouts=Layouts.of_one(Layout(1, 1, n_tokens)),
    )


def loaded(path, *, compute=None):
    """Yield a model made of the real parts, or with outputs that a callable makes."""
    metadata = read_metadata(path)
    model = LlamaBackend().load(metadata, ModelConfig(flash_attn=False), "rank")
    scheduler = scheduler_of(FakeModel(compute) if compute else model, 128)
    encoder = cross_encoder_for(
        metadata, Tokenizer(model.vocabulary, metadata), model.control_tokens
    )
    facts = SimpleNamespace(name="tiny", n_ctx=metadata.n_ctx_train, pooling_type="rank")
    yield Loaded(scheduler, encoder, facts, ModelStatistics("tiny"))
    scheduler.close()
    model.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("rerank") / "bert.gguf")


@pytest.fixture(scope="module")
def model(path):
    yield from loaded(path)


def scored(*logits, scores=None):
    scores = logits if scores is None else scores
    counts = (3,) * len(logits), (0,) * len(logits)
    return PairScores(np.array(logits), np.array(scores), *counts)


def test_the_best_come_first_and_equal_ones_stay_in_order():
    results = rank(scored(0.1, 0.9, 0.5, 0.9, 0.5), list("abcde"))
    assert [(result.index, result.document) for result in results] == [
        (1, "b"),
        (3, "d"),
        (2, "c"),
        (4, "e"),
        (0, "a"),
    ]
    assert results[0].score == pytest.approx(0.9)
    assert [result.index for result in rank(scored(0.0, -0.0, 0.0), "abc")] == [0, 1, 2]


def test_the_order_is_that_of_the_logits():
    saturated = scored(40.0, 50.0, 45.0, 50.0, scores=[1.0] * 4)
    results = rank(saturated, "abcd")
    assert [(result.index, result.score) for result in results] == [
        (1, 1.0),
        (3, 1.0),
        (2, 1.0),
        (0, 1.0),
    ]
    assert all(type(result.score) is float for result in results)
    assert rank(saturated, "abcd", top_n=3) == results[:3]


def logit_model(path, logits):
    """Yield a model that gives the documents "a", "a a", … these logits."""

    def compute(batch):
        n_besides = 8  # [CLS] what is a panda ? [SEP] … [SEP]
        rows = np.array(logits, np.float32)[np.diff(batch.offsets) - n_besides - 1]
        return rows[:, None]

    return loaded(path, compute=compute)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "logits", [(10.0, 10.0005), (20.0, 20.0005, 19.0), (60.0, 70.0, 50.0), (-95.0, -94.0, -96.0)]
)
def test_logits_that_a_float32_probability_cannot_tell_apart(path, logits, normalize):
    documents = ["a" + " a" * extra for extra in range(len(logits))]
    for model in logit_model(path, logits):
        found = score_pairs(model, QUERY, documents, normalize=normalize)
    results = rank(found, documents)
    assert [result.index for result in results] == np.argsort(logits)[::-1].tolist()
    assert [result.index for result in rank(found, documents, top_n=1)] == [1]
    given = np.sort(np.array(logits, np.float32))[::-1].astype(np.float64)
    expected = 1 / (1 + np.exp(-given)) if normalize else given
    scores = [result.score for result in results]
    np.testing.assert_allclose(scores, expected, rtol=1e-15)
    if abs(given).max() < 22 or not normalize:
        assert len(set(scores)) == len(scores)


def test_top_n_is_the_beginning():
    everything = scored(0.1, 0.9, 0.5)
    assert [result.index for result in rank(everything, list("abc"), top_n=2)] == [1, 2]
    assert len(rank(everything, list("abc"), top_n=9)) == 3
    with pytest.raises(ConfigurationError, match="top_n = 0; give 1 or more"):
        rank(everything, list("abc"), top_n=0)


def test_scores_do_not_depend_on_what_else_is_scored(model):
    together = score_pairs(model, QUERY, DOCUMENTS).scores
    alone = [score_pairs(model, QUERY, [document]).scores[0] for document in DOCUMENTS]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.dtype == np.float64
    assert together[0] == pytest.approx(together[5], abs=1e-6)  # the same document twice
    assert np.ptp(together) > 0.05


def test_normalised_scores_are_logistic_of_the_raw_ones(model):
    raw = score_pairs(model, QUERY, DOCUMENTS, normalize=False).scores
    scores = score_pairs(model, QUERY, DOCUMENTS).scores
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-raw)), rtol=1e-15)


def test_no_documents_no_scores(model):
    nothing = score_pairs(model, QUERY, [])
    assert nothing.scores.shape == (0,)
    assert rank(nothing, []) == []


def test_long_documents_are_named(model):
    with pytest.raises(InputTooLongError, match=r"document 1 \(108 tokens\), 3 \(108") as caught:
        score_pairs(model, QUERY, ["a", LONG_DOCUMENT, "b", LONG_DOCUMENT])
    assert caught.value.indices == (1, 3)
    assert caught.value.n_tokens == (108, 108)
    assert caught.value.limit == N_CTX


def test_a_cut_is_told(model):
    with capture_logs() as events:
        found = score_pairs(model, QUERY, ["a", LONG_DOCUMENT], overflow="truncate")
    assert found.n_dropped == (0, 108 - N_CTX)
    assert found.n_tokens == (9, 108)
    (event,) = [event for event in events if event["event"].startswith("embellama.rerank")]
    assert event == {
        "event": "embellama.rerank.truncated",
        "log_level": "warning",
        "model": "tiny",
        "n_texts": 1,
        "n_tokens": 108 - N_CTX,
    }
    (best, worst) = sorted(rank(found, ["a", LONG_DOCUMENT]), key=lambda result: result.index)
    assert (best.n_dropped, worst.n_dropped) == (0, 60)


@pytest.mark.parametrize("overflow", ["error", "truncate"])
def test_a_long_query_is_never_cut(model, overflow):
    with pytest.raises(InputTooLongError, match="the query has 60 tokens, 63 with") as caught:
        score_pairs(model, "panda " * 60, ["a"], overflow=overflow)
    assert caught.value.indices == ()


def test_windows_are_not_for_pairs(model):
    with pytest.raises(ConfigurationError, match="overflow = 'window'"):
        score_pairs(model, QUERY, ["a"], overflow="window")


@pytest.mark.parametrize("normalize", ["no", None, 0, 1, "false", np.True_])
def test_normalize_is_yes_or_no(model, normalize):
    for documents in (["a"], []):
        with pytest.raises(ConfigurationError, match="normalize = .*; give True for scores"):
            score_pairs(model, QUERY, documents, normalize=normalize)


def test_the_time_of_tokenization_is_recorded(path):
    for model in loaded(path):
        assert model.statistics.snapshot().tokenize_s is None
        score_pairs(model, QUERY, DOCUMENTS)
        assert 0 < model.statistics.snapshot().tokenize_s.p50 < 10
        score_pairs(model, QUERY, [])
        assert model.statistics.snapshot().tokenize_s.p50 > 0


@pytest.mark.parametrize("blank", ["", "  ", "\t\n", "\u200b", "\x00"])
def test_blank_texts_are_named(model, blank):
    with pytest.raises(EmptyInputError, match="the query has nothing to ask"):
        score_pairs(model, blank, ["a"])
    with pytest.raises(EmptyInputError, match="nothing to judge in document 1, 3") as caught:
        score_pairs(model, QUERY, ["a", blank, "b", blank])
    assert caught.value.indices == (1, 3)


def test_a_document_that_is_no_text_is_named(model):
    with pytest.raises(InvalidInputError, match=r"document 1 \(character 0 is the lone") as caught:
        score_pairs(model, QUERY, ["a", "\ud800"])
    assert caught.value.indices == (1,)


def test_only_ten_are_spelled_out(model):
    with pytest.raises(EmptyInputError, match="7, 8, 9 and 5 more") as caught:
        score_pairs(model, QUERY, [""] * 15)
    assert caught.value.indices == tuple(range(15))


def test_a_model_that_makes_vectors_is_refused():
    facts = SimpleNamespace(name="minilm", n_ctx=512, pooling_type="mean")
    vectors = Loaded(None, None, facts, ModelStatistics("minilm"))
    with pytest.raises(ConfigurationError, match=r"'minilm' makes vectors \(pooling 'mean'\)"):
        score_pairs(vectors, QUERY, ["a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_are_refused_with_the_documents_names(path, bad):
    def compute(batch):
        rows = np.zeros((batch.n_sequences, 1), np.float32)
        rows[np.diff(batch.offsets) > 12] = bad
        return rows

    for model in loaded(path, compute=compute):
        with pytest.raises(EmbeddingGenerationError, match="'tiny' gave NaN .* document 1,") as e:
            score_pairs(model, QUERY, ["a", "the panda is a bear", "b"])
        assert (e.value.model, e.value.indices) == ("tiny", (1,))


def test_pairs_that_are_packed_with_a_bad_one_are_not_named(tmp_path):
    """NaN in one word's row: attention over the packed sequences spreads it to all of them."""
    weights = bert_weights()
    weights["embeddings.word_embeddings.weight"][WORDS.index("cat")] = np.nan
    path = write_cross_encoder(tmp_path / "nan.gguf", weights=weights)
    good = [text for text in DOCUMENTS if "cat" not in text]
    documents = [*DOCUMENTS, *good, DOCUMENTS[1]]
    bad = tuple(index for index, text in enumerate(documents) if "cat" in text)
    for model in loaded(path):
        with capture_logs() as events, pytest.raises(EmbeddingGenerationError) as caught:
            score_pairs(model, QUERY, documents)
        assert any(event["event"] == "embellama.microbatch.repeated" for event in events)
        assert caught.value.indices == bad == (1, 4, 10)
        assert "gave NaN or infinity for document 1, 4, 10, also alone" in str(caught.value)
        assert np.isfinite(score_pairs(model, QUERY, good).scores).all()


def test_a_failed_micro_batch_names_its_documents(path):
    def compute(batch):
        raise DecodeError("llama.cpp returned -3", status=-3)

    for model in loaded(path, compute=compute):
        with pytest.raises(BatchError, match="document 0, 1 could not be scored: llama") as caught:
            score_pairs(model, QUERY, ["a", "b"])
        assert caught.value.failed_indices == (0, 1)
        assert isinstance(caught.value.__cause__, DecodeError)


def test_yes_and_no(tmp_path):
    path = write_yes_no_reranker(tmp_path / "qwen3.gguf")
    documents = ["the dog", "a house near the sea", "the queen had a cat"]
    for model in loaded(path):
        scores = score_pairs(model, "a cat", documents).scores
        logits = score_pairs(model, "a cat", documents, normalize=False).scores
    assert ((scores > 0) & (scores < 1)).all()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-15)
    assert np.ptp(logits) > 0.01


def test_equal_documents_are_scored_once(path):
    seen = []

    def compute(batch):
        seen.append(batch.n_sequences)
        return np.arange(batch.n_sequences, dtype=np.float32)[:, None]

    for model in loaded(path, compute=compute):
        found = score_pairs(model, QUERY, ["a", "the panda", "a", "a"], normalize=False)
    assert sum(seen) == 2
    assert found.scores[0] == found.scores[2] == found.scores[3] != found.scores[1]
    assert found.n_tokens[0] == found.n_tokens[2]

"""Scores in order, and every text that cannot be scored named."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama._llama.model import LlamaBackend
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
from embellama.rerank.cross_encoder import CrossEncoder, cross_encoder_for
from embellama.rerank.scoring import PairScores, rank, score_pairs
from embellama.scheduler import Scheduler
from embellama.testing import FakeModel
from embellama.tokenization import Tokenizer
from embellama.types import ContextOptions
from tests.tiny_cross_encoder import (
    DOCUMENTS,
    LONG_DOCUMENT,
    N_CTX,
    QUERY,
    write_cross_encoder,
    write_yes_no_reranker,
)


@dataclass
class Loaded:
    """As much of a loaded model as scoring needs."""

    scheduler: Scheduler
    cross_encoder: CrossEncoder | None
    facts: SimpleNamespace


def scheduler_of(model, n_tokens):
    return Scheduler(
        model,
        name="tiny",
        options=ContextOptions(n_tokens=n_tokens, n_sequences=8, n_threads=1),
        max_batch_tokens=n_tokens,
        n_contexts=1,
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
    yield Loaded(scheduler, encoder, facts)
    scheduler.close()
    model.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("rerank") / "bert.gguf")


@pytest.fixture(scope="module")
def model(path):
    yield from loaded(path)


def scored(*scores):
    return PairScores(np.array(scores, np.float32), (3,) * len(scores), (0,) * len(scores))


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
    assert together.dtype == np.float32
    assert together[0] == pytest.approx(together[5], abs=1e-6)  # the same document twice
    assert np.ptp(together) > 0.05


def test_normalised_scores_are_logistic_of_the_raw_ones(model):
    raw = score_pairs(model, QUERY, DOCUMENTS, normalize=False).scores
    scores = score_pairs(model, QUERY, DOCUMENTS).scores
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-raw)), rtol=1e-6)


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
    vectors = Loaded(None, None, SimpleNamespace(name="minilm", n_ctx=512, pooling_type="mean"))
    with pytest.raises(ConfigurationError, match=r"'minilm' makes vectors \(pooling 'mean'\)"):
        score_pairs(vectors, QUERY, ["a"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_values_are_refused_with_the_documents_names(path, bad):
    def compute(batch):
        rows = np.zeros((batch.n_sequences, 1), np.float32)
        rows[np.diff(batch.offsets) > 12] = bad
        return rows

    for model in loaded(path, compute=compute):
        with pytest.raises(EmbeddingGenerationError, match="'tiny' gave NaN .* document 1;"):
            score_pairs(model, QUERY, ["a", "the panda is a bear", "b"])


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
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-logits)), rtol=1e-4)
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

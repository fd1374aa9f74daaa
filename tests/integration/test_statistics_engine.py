"""What an engine says it has done adds up, whichever verb did it."""

import threading
import time

import numpy as np
import pytest

from embellama import (
    BatchError,
    ConfigurationError,
    DecodeError,
    EmbeddingEngine,
    EmptyInputError,
    InputTooLongError,
    ModelConfig,
    ModelNotFoundError,
)
from tests.recording import recording_engine, tiny_texts
from tests.tiny_cross_encoder import DOCUMENTS, LONG_DOCUMENT, QUERY, write_cross_encoder

LONG = "a " * 20  # 22 tokens where 16 are the limit


@pytest.fixture
def recorded(tiny_path):
    engine, backend = recording_engine(tiny_path)
    with engine:
        yield engine, backend


@pytest.fixture
def plain(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(n_threads=1))
        yield engine


def counts(engine, name="m"):
    """Return texts, cut texts, cut tokens, hits, misses, errors."""
    found = engine.stats()[name]
    return (
        found.n_texts,
        found.n_truncated,
        found.n_dropped_tokens,
        found.cache_hits,
        found.cache_misses,
        found.n_errors,
    )


def test_a_model_that_did_nothing_has_counts_of_zero(plain):
    found = plain.stats()["m"]
    assert found.model == "m"
    assert (found.n_texts, found.n_tokens, found.n_batches, *counts(plain)) == (0,) * 9
    assert (found.queue_s, found.tokenize_s, found.inference_s) == (None, None, None)


@pytest.mark.parametrize("verb", ["embed_batch", "embed_stream", "embed_detailed", "embed_tokens"])
def test_every_verb_counts_texts_tokens_batches_and_cuts(tiny_path, verb):
    engine, backend = recording_engine(tiny_path)
    texts = ["a", LONG, "c", "a", LONG]
    with engine:
        found = getattr(engine, verb)("m", texts, overflow="truncate")
        n_found = len(found.vectors) if verb == "embed_detailed" else len(list(found))
        stats = engine.stats()["m"]
        layouts = engine.get_model_info("m").layouts
    assert n_found == stats.n_texts == 5
    assert stats.n_tokens == sum(map(len, backend.sequences))
    assert stats.n_tokens == (41 if verb == "embed_tokens" else 22)  # which repeats nothing
    assert stats.n_batches == 1
    assert stats.n_slots == layouts.max_batch_tokens
    assert stats.computed_s > 0
    assert (stats.n_truncated, stats.n_dropped_tokens) == (2, 12)
    assert stats.n_errors == 0
    assert 0 <= stats.queue_s.p50 <= stats.queue_s.p95 <= stats.queue_s.p99
    assert stats.inference_s.p50 > 0


def test_single_texts_chunks_and_pairs_count_too(plain, tmp_path):
    plain.embed("m", "a")
    plain.embed_late("m", ["a", " c", " a"])
    assert counts(plain)[0] == 4
    plain.load_model(write_cross_encoder(tmp_path / "rank.gguf"), name="rank")
    plain.rerank("rank", QUERY, [*DOCUMENTS, LONG_DOCUMENT], overflow="truncate", top_n=2)
    stats = plain.stats()["rank"]
    assert stats.n_texts == len(DOCUMENTS) + 1
    assert stats.n_truncated == 1
    assert stats.n_dropped_tokens > 10
    assert stats.n_batches >= 1
    assert counts(plain)[0] == 4


def test_windows_count_as_they_are_computed(plain):
    plain.embed("m", LONG, overflow="window", window_overlap=0)
    stats = plain.stats()["m"]
    assert (stats.n_texts, stats.n_truncated, stats.n_tokens) == (1, 0, 16 + 8)


@pytest.mark.parametrize("verb", ["embed_batch", "embed_stream"])
def test_hits_misses_and_cuts_from_the_cache(recorded, verb):
    engine, _ = recorded
    texts = [*tiny_texts(10), LONG]

    def run(wanted):
        return len(list(getattr(engine, verb)("m", wanted, overflow="truncate")))

    assert run(texts) == 11
    assert counts(engine) == (11, 1, 6, 0, 11, 0)
    assert run([*texts, LONG]) == 12
    # a repeated text is looked up once; it is an answered text each time
    assert counts(engine) == (23, 3, 18, 11, 11, 0)
    before = engine.stats()["m"]
    assert run([*texts, "a"]) == 12
    after = engine.stats()["m"]
    assert (after.cache_hits, after.cache_misses) == (22, 12)
    assert after.n_tokens - before.n_tokens == 3
    assert after.n_batches - before.n_batches == 1


def test_calls_that_raise_are_counted_once_each(plain):
    for call, error in (
        (lambda: plain.embed("m", ""), EmptyInputError),
        (lambda: plain.embed_batch("m", ["a", LONG]), InputTooLongError),
        (lambda: list(plain.embed_stream("m", ["a", LONG])), InputTooLongError),
        (lambda: plain.embed_tokens("m", [LONG]), InputTooLongError),
        (lambda: plain.embed_late("m", [LONG]), InputTooLongError),
        (lambda: plain.embed("m", "a", max_tokens=99), ConfigurationError),
        (lambda: plain.embed_detailed("m", ["a"], dimensions=7), ConfigurationError),
        (lambda: plain.rerank("m", "a", ["c"]), ConfigurationError),
        (lambda: plain.tokenize("m", None), TypeError),
    ):
        before = plain.stats()["m"].n_errors
        with pytest.raises(error):
            call()
        assert plain.stats()["m"].n_errors == before + 1
    assert counts(plain)[0] == 0
    with pytest.raises(ModelNotFoundError):
        plain.embed("other", "a")
    assert list(plain.stats()) == ["m"]
    assert plain.stats()["m"].n_errors == 9


def test_failed_inference_is_an_error_and_no_answered_text(recorded):
    engine, backend = recorded

    def fail(batch):
        raise DecodeError("scripted", status=-3)

    backend.before = fail
    with pytest.raises(BatchError):
        engine.embed_batch("m", ["a", "c"])
    assert counts(engine) == (0, 0, 0, 0, 2, 1)
    assert engine.stats()["m"].n_batches == 0
    backend.before = lambda batch: None
    engine.embed_batch("m", ["a", "c"])
    assert counts(engine) == (2, 0, 0, 0, 4, 1)


def test_a_stream_that_is_left_counts_what_came(plain):
    stream = plain.embed_stream("m", tiny_texts(500))
    for _ in range(3):
        next(stream)
    stream.close()
    assert counts(plain) == (64, 0, 0, 0, 0, 0)  # the first window
    with pytest.raises(RuntimeError, match="source"):
        list(plain.embed_stream("m", _failing()))
    assert counts(plain)[5] == 0  # it is the caller's error, not ours


def _failing():
    yield "a"
    raise RuntimeError("the source failed")


def test_tokenization_of_streams_and_batches_is_measured(plain):
    plain.embed_batch("m", tiny_texts(5))
    assert plain.stats()["m"].tokenize_s.p50 > 0
    list(plain.embed_stream("m", tiny_texts(64 + 128 + 1)))
    assert plain.stats()["m"].tokenize_s.p50 > 0


def test_waiting_and_computing_are_told_apart(recorded):
    engine, backend = recorded
    backend.before = lambda batch: time.sleep(0.05)
    engine.embed_batch("m", tiny_texts(100))  # some micro-batches, one after the other
    stats = engine.stats()["m"]
    assert stats.n_batches >= 4
    assert stats.inference_s.p50 >= 0.05
    assert stats.queue_s.p99 >= 0.1
    assert stats.queue_s.p50 < stats.queue_s.p99


def test_counts_are_exact_under_threads(recorded):
    engine, backend = recorded
    texts = tiny_texts(200)

    def work(number):
        for start in range(0, 200, 50):
            engine.embed_batch("m", texts[start : start + 50])
            engine.embed("m", texts[(7 * number + start) % 200])
            list(engine.embed_stream("m", texts[start : start + 10]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stats = engine.stats()["m"]
    assert stats.n_texts == 6 * 4 * (50 + 1 + 10)
    assert stats.cache_hits + stats.cache_misses == stats.n_texts
    assert stats.n_tokens == sum(map(len, backend.sequences))
    assert stats.cache_misses == len(backend.sequences)
    assert stats.n_errors == 0


def test_a_loaded_model_begins_anew(plain, tiny_path):
    plain.embed("m", "a")
    plain.load_model(tiny_path, name="other", config=ModelConfig(n_threads=1))
    assert {name: found.n_texts for name, found in plain.stats().items()} == {"m": 1, "other": 0}
    plain.unload_model("m")
    plain.load_model(tiny_path, name="m", config=ModelConfig(n_threads=1))
    assert plain.stats()["m"].n_texts == 0
    assert np.isfinite(plain.embed("m", "a")).all()

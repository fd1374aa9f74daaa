"""An engine with a cache: the same vectors and accounts, and nothing computed twice."""

import numpy as np
import pytest

from embellama import (
    Chunk,
    ConfigurationError,
    EmbeddingCache,
    EmbeddingEngine,
    InputTooLongError,
    ModelConfig,
)
from embellama.embedding import BATCH_TOLERANCE
from embellama.precision.calibration import Calibration
from embellama.precision.codes import quantize, shorten
from embellama.types import CachedVector
from tests.conftest import QUIET
from tests.recording import RecordingBackend, in_threads, recording_engine, tiny_texts
from tests.reference_texts import SENTENCES


@pytest.fixture
def recorded(tiny_path):
    engine, backend = recording_engine(tiny_path)
    with engine:
        yield engine, backend


@pytest.fixture(scope="module")
def cached(minilm_path):
    """The real model behind a cache in memory; the cache is empty at the start of each test."""
    with EmbeddingCache.in_memory() as cache, EmbeddingEngine(cache=cache) as engine:
        engine.load_model(minilm_path, name="minilm", config=QUIET)
        yield engine, cache


@pytest.fixture(autouse=True)
def _empty(request):
    if "cached" in request.fixturenames:
        request.getfixturevalue("cached")[1].clear()


class DictCache:
    """A cache in a dict, with faults on demand."""

    def __init__(self):
        self.values = {}
        self.fault = None
        self.puts_until_fault = 0
        self.n_gets = 0

    def get_many(self, keys):
        self.n_gets += 1
        if self.fault == "get":
            raise OSError("the cache cannot be read")
        return [self.values.get(key) for key in keys]

    def put_many(self, items):
        if self.fault == "put":
            if self.puts_until_fault == 0:
                raise OSError("the cache cannot be written")
            self.puts_until_fault -= 1
        self.values.update(items)


# ── hits ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_a_hit_is_the_same_vector_and_account(cached, overflow):
    engine, cache = cached
    texts = [*SENTENCES[:10], " ".join(SENTENCES[:60]), SENTENCES[0]]
    first = engine.embed_detailed("minilm", texts, overflow=overflow)
    again = engine.embed_detailed("minilm", texts, overflow=overflow)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    for one, other in zip(first.texts, again.texts, strict=True):
        assert not one.cached
        assert other.cached
        assert (one.n_tokens, one.n_dropped, one.n_windows, one.truncated) == (
            other.n_tokens,
            other.n_dropped,
            other.n_windows,
            other.truncated,
        )
    long = again.texts[10]
    assert long.truncated if overflow == "truncate" else long.n_windows > 1
    assert first.fingerprint == again.fingerprint
    assert first.usage.n_tokens == again.usage.n_tokens
    assert (first.usage.n_computed_tokens > 0, again.usage.n_computed_tokens) == (True, 0)
    assert again.timings.inference_s == 0
    assert again.timings.queue_s == 0
    assert again.timings.cache_s > 0
    assert cache.stats().n_entries == 11
    for text, vector in zip(texts, again.vectors, strict=True):
        np.testing.assert_array_equal(engine.embed("minilm", text, overflow=overflow), vector)
    stream = np.stack(list(engine.embed_stream("minilm", texts, overflow=overflow)))
    np.testing.assert_array_equal(stream, again.vectors)


@pytest.mark.filterwarnings("ignore:no prompts are known")
def test_every_verb_fills_and_uses_the_cache(recorded):
    engine, backend = recorded
    a, b, c, d = tiny_texts(4)
    engine.embed("m", a)
    engine.embed_batch("m", [b])
    list(engine.embed_stream("m", [c]))
    engine.embed_chunks("m", [Chunk("1", d)])
    assert len(backend.sequences) == 4
    assert engine.embed_batch("m", [a, b, c, d]).shape == (4, 64)
    engine.embed_documents("m", [a, b])
    engine.embed_query("m", d)
    list(engine.embed_stream("m", [d, c, b, a]))
    assert [r.cached for r in engine.embed_detailed("m", [a, "a", d]).texts] == [True, False, True]
    assert len(backend.sequences) == 5


def test_vectors_from_the_cache_are_the_callers_own(cached):
    engine, _ = cached
    expected = engine.embed("minilm", "one text").copy()
    for call in (
        lambda: engine.embed("minilm", "one text"),
        lambda: engine.embed_batch("minilm", ["one text"])[0],
        lambda: next(engine.embed_stream("minilm", ["one text"])),
    ):
        vector = call()
        np.testing.assert_array_equal(vector, expected)
        vector[:] = 7


@pytest.mark.parametrize("precision", ["float16", "int8", "uint8", "binary", "ubinary"])
def test_length_and_precision_are_made_after_the_cache(cached, precision):
    engine, cache = cached
    rows = engine.embed_batch("minilm", SENTENCES[:20])
    ranges = Calibration.from_vectors(shorten(rows, 128))
    if precision not in ("int8", "uint8"):
        ranges = None
    options = {"dimensions": 128, "force_dimensions": True}
    before = cache.stats()
    got = engine.embed_batch(
        "minilm", SENTENCES[:20], precision=precision, calibration=ranges, **options
    )
    np.testing.assert_array_equal(got, quantize(shorten(rows, 128), precision, ranges))
    stats = cache.stats()
    assert (stats.n_entries, stats.hits - before.hits, stats.misses) == (20, 20, before.misses)
    # and the other way round: what a short call puts in is the whole vector
    cache.clear()
    engine.embed_batch("minilm", SENTENCES[:20], precision=precision, calibration=ranges, **options)
    np.testing.assert_allclose(
        engine.embed_batch("minilm", SENTENCES[:20]), rows, atol=BATCH_TOLERANCE["F32"]
    )
    assert cache.stats().n_entries == 20


def test_what_makes_another_vector_misses(recorded):
    engine, backend = recorded
    ids = [2, 6, 8, 3]

    def computed(item, **options):
        backend.sequences.clear()
        engine.embed("m", item, **options)
        return bool(backend.sequences)

    for options in (
        {},
        {"prompt": "c "},
        {"prompt": "c"},
        {"overflow": "truncate"},
        {"overflow": "truncate", "truncate_side": "left"},
        {"overflow": "truncate", "max_tokens": 9},
        {"overflow": "window"},
        {"overflow": "window", "window_overlap": 5},
        {"normalization": "none"},
        {"normalization": "max_abs"},
        {"normalization": 1},
    ):
        assert computed("a c", **options)
        assert not computed("a c", **options)
    assert not computed("a c", prompt="")
    assert not computed("a c", normalization="l2")
    assert not computed("a c", overflow="error")
    assert computed(ids)  # a text and its ids are two inputs
    assert not computed(np.array(ids, dtype=np.int64))
    assert computed("a  c")


def test_a_lower_limit_is_not_got_around_by_a_hit(recorded):
    engine, _ = recorded
    text = tiny_texts(1)[0]
    engine.embed("m", text)
    with pytest.raises(InputTooLongError, match="limit of 5 tokens"):
        engine.embed("m", text, max_tokens=5)


def test_other_models_and_poolings_miss_and_the_same_file_hits(tiny_path, tmp_path):
    cache, backend = EmbeddingCache.in_memory(), RecordingBackend()
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(tiny_path.read_bytes())
    with EmbeddingEngine(backend=backend, cache=cache) as engine:
        for name, path, pooling in (
            ("mean", tiny_path, "mean"),
            ("cls", tiny_path, "cls"),
            ("copy", copy, "mean"),
        ):
            engine.load_model(path, name=name, config=ModelConfig(pooling_type=pooling))
        mean, cls, copied = (engine.embed(name, "a c") for name in ("mean", "cls", "copy"))
    assert len(backend.sequences) == 2
    np.testing.assert_array_equal(mean, copied)
    assert not np.allclose(mean, cls)


def test_engines_share_a_cache_and_a_cache_on_disk_outlives_them(tiny_path, tmp_path):
    texts = tiny_texts(30)
    vectors = []
    for _ in range(2):
        with EmbeddingCache.tiered(tmp_path / "cache.db") as cache:
            engine, backend = recording_engine(tiny_path, cache=cache)
            other, unused = recording_engine(tiny_path, cache=cache)
            with engine, other:
                vectors += [engine.embed_batch("m", texts), other.embed_batch("m", texts)]
            assert not unused.sequences
            assert cache.stats().n_entries == 30
    assert not backend.sequences
    for found in vectors[1:]:
        np.testing.assert_array_equal(found, vectors[0])


def test_a_closed_cache_does_not_stop_the_engine(tiny_path):
    cache = EmbeddingCache.in_memory()
    engine, backend = recording_engine(tiny_path, cache=cache)
    with engine:
        engine.embed("m", "a")
        cache.close()
        engine.embed("m", "a")
        assert engine.embed_batch("m", ["a", "c"]).shape == (2, 64)
    assert len(backend.sequences) == 4


def test_warming_a_cache(tiny_path):
    cache = EmbeddingCache.in_memory()
    engine, backend = recording_engine(tiny_path, cache=cache)
    with engine:
        cache.warm(engine, "m", iter(tiny_texts(100)))
        assert len(backend.sequences) == 100
        engine.embed_batch("m", tiny_texts(100))
        assert len(backend.sequences) == 100


# ── once ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", ["embed_batch", "embed_stream"])
@pytest.mark.parametrize("with_cache", [True, False])
def test_repeated_inputs_are_computed_once(tiny_path, verb, with_cache):
    backend = RecordingBackend()
    cache = EmbeddingCache.in_memory() if with_cache else None
    with EmbeddingEngine(backend=backend, cache=cache) as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(n_threads=1))
        items = ["a", "c", "a", [2, 6, 3], "a", np.array([2, 6, 3]), "c", [2, 7, 3]]
        vectors = np.stack(list(getattr(engine, verb)("m", items)))
    assert sorted(backend.sequences) == [[2, 6, 3], [2, 6, 3], [2, 7, 3], [2, 8, 3]]
    for one, other in ((0, 2), (0, 4), (1, 6), (3, 5)):
        np.testing.assert_array_equal(vectors[one], vectors[other])
    assert not np.allclose(vectors[0], vectors[1])


def test_progress_adds_up_with_hits_repeats_and_misses(recorded):
    engine, _ = recorded
    texts = tiny_texts(600)
    engine.embed_batch("m", texts[:250])
    told = []

    def count(wanted):
        told.clear()
        engine.embed_batch("m", wanted, progress=lambda done, total: told.append((done, total)))
        done = [each for each, _ in told]
        assert {total for _, total in told} == {len(wanted)}
        assert done == sorted(set(done))
        assert done[-1] == len(wanted)

    mixed = [*texts, *texts[200:300], *texts[:10]]
    count(mixed)
    assert len(told) > 3
    count(mixed)
    assert told == [(710, 710)]
    count(["a"] * 7)
    assert told == [(7, 7)]


def test_a_progress_callable_may_embed_the_same_texts(recorded):
    engine, _ = recorded
    texts, found = tiny_texts(100), []

    def embed_again(done, total):
        found.append(engine.embed_batch("m", texts))

    vectors = engine.embed_batch("m", texts, progress=embed_again)
    for other in found:
        np.testing.assert_allclose(other, vectors, atol=BATCH_TOLERANCE["F32"])


def test_a_progress_callable_that_raises_frees_the_others(recorded):
    engine, _ = recorded
    texts = tiny_texts(50)

    def fail(done, total):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        engine.embed_batch("m", texts, progress=fail)
    (vectors,) = in_threads(lambda: engine.embed_batch("m", texts))
    assert vectors.shape == (50, 64)


# ── streams ─────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_of_hits_misses_and_repeats_is_the_batch(recorded):
    engine, backend = recorded
    texts = tiny_texts(900)
    engine.embed_batch("m", texts[::3])
    mixed = [*texts[:500], *texts[100:400], *texts[500:], "a", "a"]
    stream = list(engine.embed_stream("m", (text for text in mixed)))
    assert len(stream) == len(mixed)
    # a text of a window that is not done yet is computed again in the next
    np.testing.assert_allclose(
        np.stack(stream), engine.embed_batch("m", mixed), rtol=0, atol=BATCH_TOLERANCE["F32"]
    )
    assert len(backend.times) == 901
    again = len(backend.sequences)
    list(engine.embed_stream("m", mixed))
    assert len(backend.sequences) == again


# ── caches that misbehave ───────────────────────────────────────────────────────────────────────


def test_a_vector_of_another_width_is_not_taken(tiny_path):
    cache = DictCache()
    engine, backend = recording_engine(tiny_path, cache=cache)
    with engine:
        right = engine.embed("m", "a")
        (key,) = cache.values
        cache.values[key] = CachedVector(np.ones(65, dtype=np.float32), 3)
        np.testing.assert_array_equal(engine.embed("m", "a"), right)
        cache.values[key] = CachedVector(np.ones((1, 64), dtype=np.float32), 3)
        np.testing.assert_array_equal(next(engine.embed_stream("m", ["a"])), right)
        assert cache.values[key].vector.shape == (64,)
    assert len(backend.sequences) == 3


@pytest.mark.parametrize("verb", ["embed_batch", "embed_stream"])
@pytest.mark.parametrize("fault", ["get", "put"])
def test_an_exception_of_a_foreign_cache_reaches_the_caller_and_frees_its_claims(
    tiny_path, verb, fault
):
    """A `VectorCache` has not to raise; one that does is a bug that should be seen."""
    cache = DictCache()
    engine, _ = recording_engine(tiny_path, cache=cache)
    with engine:
        cache.fault = fault
        with pytest.raises(OSError, match="the cache cannot be"):
            list(getattr(engine, verb)("m", tiny_texts(10)))
        cache.fault = None
        (vectors,) = in_threads(lambda: engine.embed_batch("m", tiny_texts(10)))
        assert vectors.shape == (10, 64)


def test_a_cache_that_fails_in_the_second_window_keeps_the_first(tiny_path):
    cache = DictCache()
    engine, backend = recording_engine(tiny_path, cache=cache)
    texts = tiny_texts(1100)
    with engine:
        cache.fault, cache.puts_until_fault = "put", 1
        with pytest.raises(OSError, match="written"):
            engine.embed_batch("m", texts)
        assert len(cache.values) == 512
        cache.fault = None
        backend.sequences.clear()
        (vectors,) = in_threads(lambda: engine.embed_batch("m", texts))
        assert len(backend.sequences) == 1100 - 512
        assert vectors.shape == (1100, 64)


def test_options_are_refused_before_the_cache_is_asked(tiny_path):
    cache = DictCache()
    engine, _ = recording_engine(tiny_path, cache=cache)
    with engine:
        engine.embed("m", "a")
        before = cache.n_gets
        with pytest.raises(ConfigurationError):
            engine.embed("m", "a", dimensions=3)
        assert cache.n_gets == before

import inspect

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.cache import CacheStats, EmbeddingCache
from embellama.errors import (
    ConfigurationError,
    EmptyInputError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.types import CachedVector
from tests.recording import recording_engine, tiny_texts
from tests.unit.cache.vectors import found_in, is_right, items_of, key_of, value_of


@pytest.fixture(params=["in_memory", "on_disk", "tiered"])
def cache(request, tmp_path):
    path = [] if request.param == "in_memory" else [tmp_path / "a" / "cache.db"]
    with getattr(EmbeddingCache, request.param)(*path) as cache:
        yield cache


def test_one_at_a_time(cache):
    assert cache.get(key_of(1)) is None
    cache.put(key_of(1), value_of(1))
    assert is_right(cache.get(key_of(1)), 1)
    stats = cache.stats()
    assert isinstance(stats, CacheStats)
    assert (stats.hits, stats.misses, stats.n_entries) == (1, 1, 1)
    assert stats.size_bytes > 384 * 4


def test_nothing_asked_nothing_given(cache):
    assert cache.get_many([]) == []
    cache.put_many([])
    assert cache.stats().hit_rate == 0.0


def test_what_comes_back_cannot_be_changed(cache):
    cache.put(key_of(1), value_of(1))
    with pytest.raises(ValueError, match="read-only"):
        cache.get(key_of(1)).vector[:] = 0
    assert is_right(cache.get(key_of(1)), 1)


def test_there_and_back(cache, tmp_path):
    cache.put_many(items_of(range(5)))
    assert cache.save(tmp_path / "saved") == cache.export(tmp_path / "exported") == 5
    cache.clear()
    assert found_in(cache, range(5)) == []
    assert cache.load(tmp_path / "saved") == cache.import_(tmp_path / "exported") == 5
    assert found_in(cache, range(5)) == list(range(5))


def test_a_closed_cache_is_passed_by_and_not_saved_over(cache, tmp_path):
    cache.put_many(items_of([1]))
    cache.save(tmp_path / "saved")
    cache.close()
    cache.put_many(items_of([2]))
    assert found_in(cache, [1, 2]) == []
    for refused in (cache.save, cache.load, cache.export, cache.import_):
        with pytest.raises(ConfigurationError, match="cache is closed"):
            refused(tmp_path / "saved")
    with pytest.raises(ConfigurationError, match="closed"):
        cache.clear()
    cache.close()


@pytest.mark.parametrize(
    "item",
    [
        ("key", value_of(1)),
        (b"short", value_of(1)),
        (key_of(1), value_of(1).vector),
        (key_of(1), CachedVector(np.zeros(3), 1)),
        (key_of(1), CachedVector(np.zeros((1, 3), np.float32), 1)),
        (key_of(1), CachedVector([1.0], 1)),
        (key_of(1), CachedVector(np.zeros(3, np.float32), -1)),
        (key_of(1), CachedVector(np.zeros(3, np.float32), 1, 0, 1.5)),
    ],
)
def test_other_things_are_refused(cache, item):
    with pytest.raises(
        InvalidInputTypeError, match="item 1: .*(32 bytes|CachedVector|float32|n_)"
    ) as e:
        cache.put_many([*items_of([2]), item])
    assert e.value.indices == (1,)
    assert found_in(cache, [1, 2]) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"max_bytes": 0},
        {"max_bytes": 1.5},
        {"max_entries": 0},
        {"max_entries": True},
        {"ttl_s": 0},
        {"ttl_s": float("nan")},
        {"autosave_interval_s": 0},
    ],
)
def test_settings_of_memory_that_cannot_be(settings):
    with pytest.raises(ConfigurationError, match=f"{next(iter(settings))} = .* has to be"):
        EmbeddingCache.in_memory(**settings)


def test_settings_of_a_file_that_cannot_be(tmp_path):
    with pytest.raises(ConfigurationError, match="max_bytes = 1000; it has to be at least 1048576"):
        EmbeddingCache.on_disk(tmp_path / "c", max_bytes=1000)
    with pytest.raises(ConfigurationError, match="max_memory_bytes = 0"):
        EmbeddingCache.tiered(tmp_path / "c", max_memory_bytes=0)
    with pytest.raises(ConfigurationError, match="NUL"):
        EmbeddingCache.on_disk("a\0b")
    with pytest.raises(ConfigurationError, match="home directory is not known"):
        EmbeddingCache.on_disk("~nobody-of-this-name/cache.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_place(cache, bad):
    vector = np.ones(8, dtype=np.float32)
    vector[5] = bad
    with pytest.raises(
        InvalidInputError, match=f"item 1: component 5 of the vector is {bad};"
    ) as e:
        cache.put_many([*items_of([2]), (key_of(1), CachedVector(vector, 1))])
    assert e.value.indices == (1,)
    assert not isinstance(e.value, InvalidInputTypeError)
    with pytest.raises(InvalidInputError, match="item 0: component 5"):
        cache.put(key_of(1), CachedVector(vector, 1))
    assert found_in(cache, [1, 2]) == []


@pytest.mark.parametrize("n_embd", [0, (1 << 21) + 1])
def test_a_vector_of_a_width_that_cannot_be_is_refused(cache, n_embd):
    with pytest.raises(InvalidInputError, match=f"{n_embd} components; 1 to 2097152 can be kept"):
        cache.put(key_of(1), CachedVector(np.zeros(n_embd, np.float32), 1))


def test_the_widest_vector_is_kept(cache):
    value = value_of(1, 1 << 21)
    cache.put(key_of(1), value)
    assert is_right(cache.get(key_of(1)), 1)
    assert cache.stats().corrupt == 0


def test_counts_of_numpy_are_numbers_too(cache):
    vector = np.ones(3, np.float32)
    cache.put(key_of(1), CachedVector(vector, np.int64(5), np.int32(2), np.uint8(1)))
    value = cache.get(key_of(1))
    assert (value.n_tokens, value.n_dropped, value.n_windows) == (5, 2, 1)


# ── warming ─────────────────────────────────────────────────────────────────────────────────────

PROMPTS = {"query": "c ", "document": "b ", "other": "a "}


@pytest.fixture
def engine(cache, tiny_path):
    """A real engine that was made with the cache; its model has prompts."""
    engine, backend = recording_engine(
        tiny_path, cache=cache, config=ModelConfig(n_threads=1, prompts=PROMPTS)
    )
    engine.recorded = backend.sequences
    with engine:
        yield engine


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "query"},
        {"prompt": "a b "},
        {"prompt_name": "other"},
        {"kind": "document", "overflow": "truncate", "truncate_side": "left", "max_tokens": 5},
        {"kind": "document", "overflow": "window", "max_tokens": 6, "window_overlap": 1},
        {"kind": "document", "normalization": "none"},
    ],
    ids=str,
)
def test_what_was_warmed_is_what_the_same_options_find(cache, engine, options):
    texts = ["a", "c", "abc abc abc abc" if "overflow" in options else "ab"]
    assert cache.warm(engine, "m", iter(texts), **options) == 3
    n_computed = len(engine.recorded)
    done = engine.embed_detailed("m", texts, **options)
    assert all(report.cached for report in done.texts)
    engine.embed_batch("m", texts, dimensions=8, force_dimensions=True, **options)
    assert len(engine.recorded) == n_computed
    assert cache.warm(engine, "m", [*texts, "b"], **options) == 1


def test_every_option_of_a_vector_can_be_warmed():
    """One that is added to the engine's verbs has to be added here, or is left out on purpose."""
    after_the_cache = {"dimensions", "force_dimensions", "precision", "calibration", "progress"}
    after_the_cache |= {"priority", "timeout_s"}  # warming is bulk work that takes its time
    verb = inspect.signature(EmbeddingEngine.embed_detailed).parameters
    warm = inspect.signature(EmbeddingCache.warm).parameters
    assert set(warm) - {"engine"} == set(verb) - after_the_cache
    assert all(warm[name].default == verb[name].default for name in set(warm) - {"engine"})


def test_warming_is_embedding_a_part_at_a_time(cache, engine, monkeypatch):
    monkeypatch.setattr("embellama.cache.front._WARM_TEXTS", 40)
    texts = tiny_texts(100)
    taken = []

    def source():
        for text in texts:
            taken.append(len(engine.recorded))
            yield text

    assert cache.warm(engine, "m", source(), kind="query") == 100
    assert [taken[at] for at in (0, 39, 40, 79, 80, 99)] == [0, 0, 40, 40, 80, 80]


def test_an_error_says_from_where_it_counts(cache, engine, monkeypatch):
    monkeypatch.setattr("embellama.cache.front._WARM_TEXTS", 2)
    with pytest.raises(EmptyInputError) as caught:
        cache.warm(engine, "m", ["a", "b", "c", ""], kind="query")
    assert caught.value.indices == (1,)
    assert caught.value.__notes__ == ["Positions are counted from text 2 of those to warm with."]
    assert engine.embed_detailed("m", ["a"], kind="query").texts[0].cached


def test_an_engine_that_does_not_use_the_cache_is_refused(cache, tiny_path):
    with EmbeddingEngine() as engine, pytest.raises(ConfigurationError, match="has no cache"):
        cache.warm(engine, "m", ["a"])
    other, _ = recording_engine(tiny_path)
    with other, pytest.raises(ConfigurationError, match="another cache.*EmbeddingEngine"):
        cache.warm(other, "m", ["a"])


def test_warming_a_closed_cache_and_one_text(cache, engine):
    with pytest.raises(InvalidInputTypeError, match="one str"):
        cache.warm(engine, "m", "text")
    cache.close()
    with pytest.raises(ConfigurationError, match="cache is closed"):
        cache.warm(engine, "m", ["a"])
    assert engine.recorded == []

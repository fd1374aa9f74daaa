import numpy as np
import pytest

from embellama.cache import CacheStats, EmbeddingCache
from embellama.errors import ConfigurationError, InvalidInputTypeError
from embellama.types import CachedVector
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
    ],
)
def test_other_things_are_refused(cache, item):
    with pytest.raises(InvalidInputTypeError, match="32 bytes|CachedVector|float32"):
        cache.put_many([*items_of([2]), item])
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


class Engine:
    """Embeds into nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, int]] = []

    def embed_batch(self, model, texts):
        self.calls.append((model, len(texts)))
        return np.zeros((len(texts), 1), dtype=np.float32)


def test_warming_is_embedding_a_part_at_a_time(cache):
    engine = Engine()
    cache.warm(engine, "m", (f"text {n}" for n in range(10_000)))
    assert engine.calls == [("m", 4096), ("m", 4096), ("m", 1808)]
    with pytest.raises(InvalidInputTypeError, match="one str"):
        cache.warm(engine, "m", "text")

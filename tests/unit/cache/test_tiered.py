import pytest

from embellama.cache.disk import DiskCache
from embellama.cache.memory import MemoryCache
from embellama.cache.tiered import TieredCache
from tests.unit.cache.vectors import found_in, items_of, keys_of


@pytest.fixture
def disk(tmp_path):
    disk = DiskCache(tmp_path / "cache.db", max_bytes=None)
    yield disk
    disk.close()


def test_what_came_from_disk_is_read_once(disk):
    disk.put_many(items_of([1, 2]))
    cache = TieredCache(MemoryCache(), disk)
    for _ in range(3):
        assert found_in(cache, [1, 2]) == [1, 2]
    assert disk.stats().hits == 2
    assert (cache.stats().hits, cache.stats().misses) == (6, 0)


def test_what_memory_drops_the_disk_still_has(disk):
    cache = TieredCache(MemoryCache(max_entries=5), disk)
    cache.put_many(items_of(range(20)))
    assert found_in(cache, range(25)) == list(range(20))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.n_entries, stats.evictions) == (20, 5, 20, 0)


def test_without_its_disk_it_is_a_memory(disk):
    cache = TieredCache(MemoryCache(), disk)
    disk.close()
    cache.put_many(items_of([1]))
    assert found_in(cache, [1, 2]) == [1]
    assert cache.stats().n_entries == 1


def test_clear_restore_and_entries(disk):
    cache = TieredCache(MemoryCache(), disk)
    cache.put_many(items_of([1, 2]))
    entries = list(cache.entries())
    cache.clear()
    assert found_in(cache, [1, 2]) == []
    cache.restore(entries)
    assert sorted(entry.key for entry in cache.entries()) == sorted(keys_of([1, 2]))
    assert found_in(cache, [1, 2]) == [1, 2]
    cache.close()
    assert found_in(cache, [1, 2]) == []

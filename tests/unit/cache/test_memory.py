import sys
import threading
import tracemalloc

import numpy as np
import pytest

from embellama.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from embellama.cache.stats import Entry
from embellama.types import CachedVector
from tests.unit.cache.vectors import found_in, items_of, key_of, keys_of, value_of

SIZE = 384 * 4 + ENTRY_OVERHEAD_BYTES


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_hits_misses_and_order():
    cache = MemoryCache()
    cache.put_many(items_of([1, 2]))
    assert found_in(cache, [2, 3, 1]) == [2, 1]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.n_entries) == (2, 1, 2)
    assert stats.hit_rate == pytest.approx(2 / 3)
    assert stats.size_bytes == 2 * SIZE


def test_the_least_recently_used_goes_first():
    cache = MemoryCache(max_entries=3)
    cache.put_many(items_of([1, 2, 3]))
    cache.get_many(keys_of([1]))
    cache.put_many(items_of([4]))
    assert found_in(cache, range(6)) == [1, 3, 4]
    assert cache.stats().evictions == 1


def test_the_byte_budget_counts_what_an_entry_takes():
    cache = MemoryCache(max_bytes=10 * SIZE)
    cache.put_many(items_of(range(15)))
    assert found_in(cache, range(15)) == list(range(5, 15))
    assert cache.stats().size_bytes == 10 * SIZE


def test_a_vector_over_the_budget_is_not_kept():
    cache = MemoryCache(max_bytes=SIZE)
    cache.put_many([(key_of(1), value_of(1, 385))])
    assert cache.stats().n_entries == cache.stats().size_bytes == 0


def test_putting_again_replaces():
    cache = MemoryCache()
    cache.put_many(items_of([1], 384) + items_of([1], 10))
    assert len(cache.get_many([key_of(1)])[0].vector) == 10
    assert cache.stats().size_bytes == 40 + ENTRY_OVERHEAD_BYTES


def test_age():
    clock = Clock()
    cache = MemoryCache(ttl_s=10, clock=clock)
    cache.put_many(items_of([1]))
    clock.now += 6
    cache.put_many(items_of([2]))
    clock.now += 4
    assert found_in(cache, [1, 2]) == [2]  # a use does not make it younger
    assert (cache.stats().expired, cache.stats().evictions) == (1, 0)
    clock.now += 6
    assert cache.stats().size_bytes == 0
    cache.put_many(items_of([3]))
    assert found_in(cache, [1, 2, 3]) == [3]


def test_restored_entries_are_as_old_as_they_were():
    clock = Clock()
    cache = MemoryCache(ttl_s=10, clock=clock)
    cache.put_many(items_of([1]))
    ages = {2: 995.0, 3: 990.0, 4: 2000.0, 5: 0.0}
    cache.restore([Entry(key_of(n), value_of(n), at) for n, at in ages.items()])
    assert found_in(cache, range(6)) == [1, 2, 4, 5]
    clock.now = 1005.0
    assert found_in(cache, range(6)) == [1, 4, 5]
    clock.now = 1010.0  # neither the future nor an unknown time makes an entry outlive the others
    assert found_in(cache, range(6)) == []


def test_a_clock_that_is_put_back():
    clock = Clock()
    cache = MemoryCache(ttl_s=10, clock=clock)
    cache.put_many(items_of([1]))
    clock.now = 500.0
    cache.put_many(items_of([2]))
    clock.now = 510.0
    assert found_in(cache, [1, 2]) == [1]


def test_what_is_kept_is_a_copy_that_nobody_changes():
    window = np.stack([value_of(1).vector, value_of(2).vector])
    cache = MemoryCache()
    cache.put_many([(key_of(1), CachedVector(window[0], 2, 1, 2))])
    window[:] = 0
    assert found_in(cache, [1]) == [1]
    (value,) = cache.get_many([key_of(1)])
    assert value.vector.base is None
    with pytest.raises(ValueError, match="read-only"):
        value.vector[0] = 1


def test_clear_and_close():
    cache = MemoryCache(ttl_s=60)
    cache.put_many(items_of(range(5)))
    cache.clear()
    assert cache.stats().n_entries == cache.stats().size_bytes == 0
    cache.put_many(items_of([1]))
    assert found_in(cache, [1]) == [1]
    cache.close()
    cache.put_many(items_of([1]))
    assert found_in(cache, [1]) == []


def test_the_overhead_is_what_python_takes():
    count, n_embd = 4000, 8
    items = items_of(range(count), n_embd)
    tracemalloc.start()
    try:
        cache = MemoryCache(ttl_s=60)
        before, _ = tracemalloc.get_traced_memory()
        for start in range(0, count, 500):
            # keys of its own, as an engine's would be
            batch = [(bytes(bytearray(key)), value) for key, value in items[start : start + 500]]
            cache.put_many(batch)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    measured = (after - before) / count - 4 * n_embd
    assert 0.6 * ENTRY_OVERHEAD_BYTES < measured <= ENTRY_OVERHEAD_BYTES, sys.version


def test_many_threads_keep_the_counts_right():
    cache = MemoryCache(max_entries=50)

    def work(seed: int) -> None:
        for n in range(300):
            number = (n * seed) % 100
            cache.put_many(items_of([number], 4))
            found_in(cache, [number, number + 1])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 4 * 300 * 2
    assert stats.n_entries == 50
    assert stats.size_bytes == 50 * (16 + ENTRY_OVERHEAD_BYTES)

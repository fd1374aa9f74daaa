"""The memory cache against a model that keeps a plain list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embellama.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache
from embellama.types import CachedVector

TTL = 10.0
keys = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.just("put"), st.lists(st.tuples(keys, st.integers(1, 40)), max_size=4)),
    st.tuples(st.just("get"), st.lists(keys, max_size=4)),
    st.tuples(st.just("wait"), st.floats(0, 12)),
    st.tuples(st.just("clear"), st.none()),
)


class Model:
    """(key, components, stored at), the least recently used first."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.limits = max_entries, max_bytes
        self.rows: list[tuple[int, int, float]] = []

    @property
    def size(self) -> int:
        return sum(4 * width + ENTRY_OVERHEAD_BYTES for _, width, _ in self.rows)

    def put(self, items, now: float) -> None:
        for key, width in items:
            self.rows = [row for row in self.rows if row[0] != key] + [(key, width, now)]
        while len(self.rows) > self.limits[0] or self.size > self.limits[1]:
            del self.rows[0]

    def get(self, key: int) -> int | None:
        for row in self.rows:
            if row[0] == key:
                self.rows.remove(row)
                self.rows.append(row)
                return row[1]
        return None

    def expire(self, now: float) -> None:
        self.rows = [row for row in self.rows if row[2] > now - TTL]


@given(st.integers(1, 6), st.integers(0, 4000), st.lists(steps, max_size=30))
def test_it_does_what_the_model_does(max_entries, max_bytes, sequence):
    now = 100.0
    model = Model(max_entries, max_bytes)
    cache = MemoryCache(max_entries=max_entries, max_bytes=max_bytes, ttl_s=TTL, clock=lambda: now)
    for verb, argument in sequence:
        if verb == "wait":
            now += argument
        model.expire(now)
        if verb == "put":
            cache.put_many([(bytes([key]), vector(key, width)) for key, width in argument])
            model.put(argument, now)
        elif verb == "get":
            found = cache.get_many([bytes([key]) for key in argument])
            widths = [model.get(key) for key in argument]
            assert [len(value.vector) if value else None for value in found] == widths
            pairs = zip(argument, found, strict=True)
            assert all((value.vector == key).all() for key, value in pairs if value)
        elif verb == "clear":
            cache.clear()
            model.rows.clear()
        assert [entry.key[0] for entry in cache.entries()] == [row[0] for row in model.rows]
        stats = cache.stats()
        assert (stats.n_entries, stats.size_bytes) == (len(model.rows), model.size)


def vector(key: int, width: int) -> CachedVector:
    return CachedVector(np.full(width, key, dtype=np.float32), 1)

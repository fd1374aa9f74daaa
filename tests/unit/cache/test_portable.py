import numpy as np
import pytest
import structlog

from embellama.cache import EmbeddingCache, portable
from embellama.cache.disk import DiskCache
from embellama.cache.memory import MemoryCache
from embellama.errors import ConfigurationError
from embellama.types import CachedVector
from tests.unit.cache.vectors import found_in, items_of, key_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "vectors.cache"


@pytest.fixture
def exported(path):
    cache = MemoryCache()
    cache.put_many(items_of(range(1100), 8))
    assert portable.save(cache, path) == 1100
    return path


def test_from_any_tier_to_any_other(exported, tmp_path):
    disk = DiskCache(tmp_path / "cache.db", max_bytes=None)
    assert portable.restore(disk, exported) == 1100
    assert portable.save(disk, exported) == 1100
    disk.close()
    memory = MemoryCache()
    assert portable.restore(memory, exported) == 1100
    assert found_in(memory, range(1200)) == list(range(1100))
    assert [file.name for file in exported.parent.iterdir()] == [exported.name]


def test_the_order_of_use_and_the_age_survive(path):
    clock = [1000.0]
    cache = MemoryCache(ttl_s=10, clock=lambda: clock[0])
    cache.put_many(items_of([1]))
    clock[0] = 1005.0
    cache.put_many(items_of([2, 3]))
    cache.get_many([key_of(2)])
    portable.save(cache, path)
    again = MemoryCache(max_entries=2, ttl_s=10, clock=lambda: clock[0])
    portable.restore(again, path)
    assert found_in(again, [1, 2, 3]) == [2, 3]
    clock[0] = 1015.0
    assert again.stats().n_entries == 0


def test_the_bytes_of_the_format(path):
    portable.save(MemoryCache(), path)
    content = path.read_bytes()
    assert content[:16] == b"embellama-cache\x01"
    assert len(content) == 48


def test_any_byte_that_changes_is_noticed_before_anything_is_put(exported):
    content = exported.read_bytes()
    for position in np.linspace(0, len(content) - 1, 60).astype(int):
        exported.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        cache = MemoryCache()
        with pytest.raises(portable.DamagedFileError):
            portable.restore(cache, exported)
        assert cache.stats().n_entries == 0


@pytest.mark.parametrize("length", [0, 5, 16, 40, 1000, -1, -40])
def test_a_cut_file(exported, length):
    exported.write_bytes(exported.read_bytes()[:length])
    with pytest.raises(portable.DamagedFileError):
        portable.restore(MemoryCache(), exported)


def test_a_damaged_file_is_set_aside_by_a_load(exported):
    exported.write_bytes(exported.read_bytes()[:-1])
    with EmbeddingCache.in_memory() as cache, structlog.testing.capture_logs() as events:
        assert cache.load(exported) == 0
        assert cache.load(exported) == 0  # not there any more, which is no fault
    assert [event["event"] for event in events] == ["embellama.cache.set_aside"]
    assert not exported.exists()
    assert len(list(exported.parent.glob("vectors.cache.damaged-*"))) == 1


def test_an_import_refuses_it_and_leaves_it_there(exported):
    exported.write_bytes(b"\x80PNG" * 100)
    with EmbeddingCache.in_memory() as cache:
        with pytest.raises(ConfigurationError, match="no sound export.*export it again"):
            cache.import_(exported)
        with pytest.raises(ConfigurationError, match="cannot be read .No such file"):
            cache.import_(exported.with_name("absent"))
    assert exported.exists()


def test_what_is_no_number_is_left_out(path):
    """None is put any more, but a file of an earlier version may have them."""
    saved = MemoryCache()
    vector = np.full(8, np.nan, dtype=np.float32)
    saved.put_many([*items_of([1]), (key_of(2), CachedVector(vector, 1)), *items_of([3])])
    assert portable.save(saved, path) == 3
    cache = MemoryCache()
    assert portable.restore(cache, path) == 2
    assert found_in(cache, [1, 2, 3]) == [1, 3]


def test_a_file_that_cannot_be_written_leaves_the_old_one(exported, monkeypatch):
    before = exported.read_bytes()

    class Failing(MemoryCache):
        def entries(self):
            yield from list(super().entries())[:700]
            raise OSError(28, "No space left on device")

    failing = Failing()
    failing.put_many(items_of(range(800), 4))
    with pytest.raises(ConfigurationError, match="cannot be written .No space left"):
        portable.save(failing, exported)
    assert exported.read_bytes() == before
    assert [file.name for file in exported.parent.iterdir()] == [exported.name]

import contextlib
import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import structlog

from embellama.cache.disk import DiskCache
from embellama.cache.recovery import alone
from embellama.errors import ConfigurationError
from embellama.types import CachedVector
from tests.unit.cache.vectors import found_in, items_of, key_of, keys_of, value_of


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "cache.db"


@pytest.fixture
def cache(path):
    cache = DiskCache(path, max_bytes=None)
    yield cache
    cache.close()


def test_hits_misses_and_order(cache):
    cache.put_many(items_of([1, 2]))
    assert found_in(cache, [2, 3, 1, 2]) == [2, 1, 2]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.n_entries) == (3, 1, 2)
    assert stats.corrupt == stats.failures == stats.evictions == 0


def test_more_keys_than_a_statement_takes(cache):
    cache.put_many(items_of(range(1500), 8))
    assert found_in(cache, range(-200, 1700)) == list(range(1500))


def test_it_outlives_the_process_that_wrote_it(cache, path):
    cache.put_many(items_of(range(10)))
    cache.close()
    again = DiskCache(path, max_bytes=None)
    assert found_in(again, range(10)) == list(range(10))
    again.close()


def test_two_caches_on_one_file_see_each_other(cache, path):
    other = DiskCache(path, max_bytes=None)
    cache.put_many(items_of([1]))
    other.put_many(items_of([2]))
    assert found_in(cache, [1, 2]) == found_in(other, [1, 2]) == [1, 2]
    other.close()


def test_putting_again_replaces(cache):
    cache.put_many(items_of([1, 2], 384))
    cache.put_many(items_of([2, 3], 10))
    assert [len(value.vector) for value in cache.get_many(keys_of([1, 2, 3]))] == [384, 10, 10]
    assert cache.stats().n_entries == 3


def test_vectors_of_many_widths(cache):
    for n_embd in (1, 64, 1024, 4096, 100_000):
        cache.put_many([(key_of(n_embd), value_of(n_embd, n_embd))])
    assert found_in(cache, [1, 64, 1024, 4096, 100_000]) == [1, 64, 1024, 4096, 100_000]


def test_entries_are_all_of_them(cache):
    cache.put_many(items_of(range(1200), 4))
    assert sorted(entry.key for entry in cache.entries()) == sorted(keys_of(range(1200)))


def test_clear_gives_the_room_back(cache, path):
    cache.put_many(items_of(range(2000)))
    assert cache.stats().size_bytes > 3e6
    cache.clear()
    assert cache.stats().n_entries == 0
    assert cache.stats().size_bytes < 1e5
    cache.put_many(items_of([1]))
    assert found_in(cache, range(10)) == [1]


def test_ten_thousand_entries_take_less_than_100_mb(cache, path):
    for start in range(0, 10_000, 500):
        cache.put_many(items_of(range(start, start + 500)))
    assert cache.stats().size_bytes < 40e6
    cache.close()
    assert sum(file.stat().st_size for file in path.parent.iterdir()) < 25e6


# ── the limit ───────────────────────────────────────────────────────────────────────────────


def test_the_file_stays_below_its_limit_and_the_newest_stay(path):
    cache = DiskCache(path, max_bytes=4 << 20)
    for start in range(0, 8000, 400):
        cache.put_many(items_of(range(start, start + 400)))
        assert path.stat().st_size <= 4 << 20
    kept = found_in(cache, range(8000))
    assert kept[-1200:] == list(range(6800, 8000))
    assert 1400 < len(kept) < 2700
    stats = cache.stats()
    assert stats.evictions == 8000 - len(kept) == 8000 - stats.n_entries
    cache.close()


def test_what_is_read_stays(path):
    cache = DiskCache(path, max_bytes=4 << 20)
    steady = list(range(100))
    cache.put_many(items_of(steady))
    for start in range(1000, 9000, 200):
        cache.put_many(items_of(range(start, start + 200)))
        assert found_in(cache, steady) == steady
    assert cache.stats().evictions > 4000
    cache.close()


def test_what_another_process_read_stays_once_that_is_written_down(path):
    writer = DiskCache(path, max_bytes=4 << 20)
    for start in range(0, 1500, 100):
        writer.put_many(items_of(range(start, start + 100)))
    reader = DiskCache(path, max_bytes=4 << 20)
    assert len(found_in(reader, range(100))) == 100
    reader.close()
    for start in range(2000, 2600, 100):
        writer.put_many(items_of(range(start, start + 100)))
    assert writer.stats().evictions > 200
    assert len(found_in(writer, range(100))) == 100
    assert len(found_in(writer, range(100, 300))) < 200
    writer.close()


def test_a_lowered_limit_is_reached_a_step_at_a_time(cache, path):
    for start in range(0, 12_000, 500):
        cache.put_many(items_of(range(start, start + 500)))
    cache.close()
    before = path.stat().st_size
    small = DiskCache(path, max_bytes=2 << 20)
    small.put_many(items_of([20_000]))
    assert path.stat().st_size <= before
    for number in range(20_001, 20_030):
        small.put_many(items_of([number]))
    small.close()
    assert path.stat().st_size <= 2 << 20


def test_vectors_too_large_for_the_limit_leave_it_standing(path):
    cache = DiskCache(path, max_bytes=1 << 20)
    cache.put_many([(key_of(n), value_of(n, 100_000)) for n in range(20)])
    assert path.stat().st_size < 1.5 * (1 << 20)
    cache.put_many(items_of([1]))
    assert found_in(cache, [1]) == [1]
    cache.close()


# ── what a disk does ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["file/cache.db", "folder", "x" * 300])
def test_a_path_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be used .*on a local disk, writable"):
        DiskCache(tmp_path / name, max_bytes=None)
    assert (tmp_path / "folder").is_dir()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_another_program_holds_is_gone_without(path):
    cache = DiskCache(path, max_bytes=None, busy_timeout_s=0.05)
    cache.put_many(items_of([1]))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with structlog.testing.capture_logs() as events:
        cache.put_many(items_of([2]))
        cache.put_many(items_of([3]))  # not tried again so soon: that would block, and say so
    assert [event["event"] for event in events] == ["embellama.cache.skipped"]
    assert events[0]["operation"] == "write"
    assert "locked, SQLITE_BUSY" in events[0]["error"]
    assert found_in(cache, [1, 2, 3]) == [1]
    assert cache.stats().failures == 2
    holder.execute("ROLLBACK")
    holder.close()
    cache.close()


def test_what_waits_for_another_program_to_write_keeps_nobody_from_reading(cache, path):
    cache.put_many(items_of([1]))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(2) as pool:
        # each of them waits until the holder goes, for five seconds at most
        putting = [pool.submit(cache.put_many, items_of([number])) for number in (2, 3)]
        for _ in range(20):
            assert found_in(cache, [1, 2, 3]) == [1]
            time.sleep(0.01)
        assert not any(future.done() for future in putting)
        holder.execute("ROLLBACK")
        for future in putting:
            future.result(20)
    holder.close()
    assert found_in(cache, [1, 2, 3]) == [1, 2, 3]
    assert cache.stats().failures == 0


def test_a_cache_is_opened_while_another_program_writes(cache, path):
    cache.put_many(items_of([1]))
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with contextlib.closing(DiskCache(path, max_bytes=None, busy_timeout_s=0.0)) as other:
        assert found_in(other, [1]) == [1]
        assert other.stats().failures == 0
    holder.close()


def test_a_lock_file_that_another_program_holds_is_waited_for_without_the_lock(cache, path):
    """Thus a process that opens the file does not hold up those who close what they have."""
    cache.put_many(items_of([1]))
    path.unlink()  # so that the next one has to open the file
    with ThreadPoolExecutor(1) as pool:
        with alone(path):
            reading = pool.submit(found_in, cache, [1])
            time.sleep(0.1)
            assert not reading.done()
            cache.close()
        assert reading.result(20) == []


def test_clear_gives_the_room_back_to_the_file_system_although_others_read(cache, path):
    cache.put_many(items_of(range(2000)))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM entries").fetchall()
    with structlog.testing.capture_logs() as events:
        cache.clear()
    assert events == []
    reader.close()
    cache.clear()
    assert cache.stats().size_bytes < 1e5
    assert cache.stats().failures == 0


def test_clear_deletes_a_file_that_it_cannot_empty(path):
    cache = DiskCache(path, max_bytes=None, busy_timeout_s=0.05)
    cache.put_many(items_of([1]))
    other = DiskCache(path, max_bytes=None)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    cache.clear()
    assert found_in(cache, [1]) == found_in(other, [1]) == []
    cache.put_many(items_of([2]))
    holder.execute("ROLLBACK")
    holder.close()
    other.put_many(items_of([3]))
    assert found_in(cache, [1, 2, 3]) == found_in(other, [1, 2, 3]) == [2, 3]
    cache.close()
    other.close()


def test_clear_says_where_it_cannot(cache, path):
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    with pytest.raises(ConfigurationError, match="neither be emptied nor deleted"):
        cache.clear()
    cache.close()
    with pytest.raises(ConfigurationError, match="is closed"):
        cache.clear()


def test_after_the_quiet_time_it_is_tried_again(path, monkeypatch):
    cache = DiskCache(path, max_bytes=None, busy_timeout_s=0.01)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    cache.put_many(items_of([1]))
    holder.close()
    monkeypatch.setattr("embellama.cache.database.time.monotonic", lambda: 1e12)
    cache.put_many(items_of([1]))
    assert found_in(cache, [1]) == [1]
    cache.close()


def test_a_folder_that_disappears(cache, path):
    cache.put_many(items_of([1]))
    shutil.rmtree(path.parent)
    path.parent.write_text("in the way")
    with structlog.testing.capture_logs() as events:
        cache.put_many(items_of([2]))
        assert found_in(cache, [1, 2]) == []
    assert {event["event"] for event in events if event["log_level"] == "warning"} == {
        "embellama.cache.skipped"
    }
    assert cache.stats().failures > 0


def test_a_file_that_is_deleted_is_made_again(cache, path):
    cache.put_many(items_of([1]))
    other = DiskCache(path, max_bytes=None)  # has the old file open all the while
    assert found_in(other, [1]) == [1]
    for _ in range(2):
        path.unlink()
        # the old file's log is not taken for the new one's
        cache.put_many(items_of([2]))
        assert found_in(cache, [1, 2]) == [2]
        assert path.exists()
    assert found_in(other, [1, 2]) == [2]
    assert cache.stats().corrupt == cache.stats().failures == 0
    other.close()
    cache.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["cache.db", "cache.db.lock"]
    with contextlib.closing(DiskCache(path, max_bytes=None)) as again:
        assert found_in(again, [1, 2]) == [2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_stored_vector_with_a_value_that_is_no_number_is_a_miss(cache, bad):
    """None is put any more, but one that an earlier version has put may be there."""
    vector = np.ones(8, dtype=np.float32)
    vector[3] = bad
    cache.put_many([*items_of([1]), (key_of(2), CachedVector(vector, 1))])
    assert found_in(cache, [1, 2]) == [1]
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.corrupt) == (1, 1, 0)
    cache.put_many(items_of([2]))
    assert found_in(cache, [1, 2]) == [1, 2]


def test_a_closed_cache_finds_and_keeps_nothing(cache):
    cache.put_many(items_of([1]))
    cache.close()
    cache.put_many(items_of([2]))
    assert found_in(cache, [1, 2]) == []
    cache.close()


def test_an_interrupt_between_two_statements_leaves_nothing_half_done(cache, monkeypatch):
    cache.put_many(items_of([1]))

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("embellama.cache.disk._portions", lambda records: map(interrupt, records))
        with pytest.raises(KeyboardInterrupt):
            cache.put_many(items_of([2]))
    cache.put_many(items_of([3]))
    assert found_in(cache, [1, 2, 3]) == [1, 3]


def test_threads_share_a_cache(cache):
    wrong = []

    def work(seed: int) -> None:
        for n in range(20):
            numbers = [(n * 17 + seed * k) % 300 for k in range(10)]
            cache.put_many(items_of(numbers, 16))
            if found_in(cache, numbers) != numbers:
                wrong.append(numbers)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 3, 7, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.stats().hits == 4 * 20 * 10


def test_a_dropped_cache_lets_go_of_its_file(path):
    cache = DiskCache(path, max_bytes=None)
    cache.put_many(items_of([1]))
    wal = Path(f"{path}-wal")
    assert wal.exists()
    del cache
    assert not wal.exists()

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import structlog

from embellama.cache import EmbeddingCache
from embellama.cache.database import _abandoned
from tests.unit.cache.vectors import found_in, items_of

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which this system lacks"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning"),
]


def in_child(work) -> int:
    """Run something in a forked child; -1 if it hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        finally:
            os._exit(status)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


@pytest.fixture(params=["in_memory", "on_disk", "tiered"])
def cache(request, tmp_path):
    path = [] if request.param == "in_memory" else [tmp_path / "cache.db"]
    with getattr(EmbeddingCache, request.param)(*path) as cache:
        yield cache


def test_a_fork_while_threads_are_at_work_leaves_no_lock_held(cache):
    ending = threading.Event()

    def work(seed: int) -> None:
        n = seed
        while not ending.is_set():
            cache.put_many(items_of([n % 1000, (n + 7) % 1000], 16))
            found_in(cache, range(n % 1000, n % 1000 + 20))
            n += 13

    def child() -> bool:
        cache.put_many(items_of([5000], 16))
        with cache.flights.call() as call:
            call.claim([b"k" * 32])
        return found_in(cache, [5000]) == [5000] and cache.stats().failures == 0

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 500)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(child) for _ in range(12)] == [0] * 12
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert cache.stats().failures == 0


def test_the_parent_may_close_while_the_child_writes(tmp_path):
    """Were a connection open across the fork, closing the parent's would delete the child's log."""
    path = tmp_path / "cache.db"
    cache = EmbeddingCache.on_disk(path)
    cache.put_many(items_of(range(10)))
    ready, go_on = os.pipe(), os.pipe()

    child = os.fork()
    if child == 0:
        status = 1
        try:
            cache.put_many(items_of(range(10, 20)))
            os.write(ready[1], b"x")
            os.read(go_on[0], 1)
            cache.put_many(items_of(range(20, 30)))
            if Path(f"{path}-wal").exists() and found_in(cache, range(40)) == list(range(30)):
                status = 0
        finally:
            os._exit(status)
    os.read(ready[0], 1)
    cache.put_many(items_of(range(30, 31)))
    cache.clear()
    cache.put_many(items_of(range(20)))
    cache.close()
    os.write(go_on[1], b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for end in (*ready, *go_on):
        os.close(end)
    with EmbeddingCache.on_disk(path) as again:
        assert found_in(again, range(40)) == list(range(30))


def test_a_child_does_not_wait_for_what_its_parent_computes(cache):
    key = b"k" * 32
    with cache.flights.call() as call:
        call.claim([key])

        def child() -> bool:
            with cache.flights.call() as own:
                return own.claim([key]) == ([key], {})

        assert in_child(child) == 0


def test_a_fork_that_python_does_not_know_of(tmp_path, monkeypatch):
    """Its connection is the parent's: the child neither uses nor closes it."""
    cache = EmbeddingCache.on_disk(tmp_path / "cache.db")
    cache.put_many(items_of([1]))
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as events:
        patch.setattr("embellama.cache.database.os.getpid", lambda: 1)
        assert found_in(cache, [1]) == []
        cache.put_many(items_of([2]))
    assert "forked without Python's knowledge" in events[0]["error"]
    assert len(events) == 1
    assert found_in(cache, [1]) == []
    _abandoned.pop().close()

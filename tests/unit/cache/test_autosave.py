import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from embellama.cache import EmbeddingCache
from embellama.errors import ConfigurationError
from tests.unit.cache.vectors import found_in, items_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "vectors.cache"


def make(path, interval_s=3600.0):
    return EmbeddingCache.in_memory(autosave_path=path, autosave_interval_s=interval_s)


def test_the_next_start_finds_what_the_last_one_had(path):
    with make(path) as cache:
        cache.put_many(items_of(range(5)))
        assert not path.exists()
    with make(path) as cache:
        assert found_in(cache, range(9)) == list(range(5))


def test_it_is_saved_from_time_to_time_where_something_has_changed(path):
    with make(path, 0.02) as cache:
        time.sleep(0.1)
        assert not path.exists()
        cache.put_many(items_of([1]))
        until(path.exists)
        first = path.stat()
        time.sleep(0.1)
        assert path.stat().st_ino == first.st_ino
        cache.put_many(items_of([2]))
        until(lambda: path.stat().st_ino != first.st_ino)


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("ending", ["", "raise SystemExit(1)", "del cache", "cache.close()"])
def test_a_program_that_ends_without_closing_saves(path, ending):
    program = (
        "import sys\n"
        "from embellama.cache import EmbeddingCache\n"
        "from tests.unit.cache.vectors import items_of\n"
        "cache = EmbeddingCache.in_memory(autosave_path=sys.argv[1])\n"
        f"cache.put_many(items_of([1]))\n{ending}\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, path],
        check=False,
        cwd=ROOT,
        capture_output=True,
    )
    assert done.stderr == b""
    with make(path) as cache:
        assert found_in(cache, [1]) == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, which Windows lacks")
def test_a_forked_child_leaves_its_parents_file_alone(path):
    program = (
        "import os, sys\n"
        "from embellama.cache import EmbeddingCache\n"
        "from tests.unit.cache.vectors import items_of, found_in\n"
        "cache = EmbeddingCache.in_memory(autosave_path=sys.argv[1])\n"
        "cache.put_many(items_of([1]))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    cache.put_many(items_of([2]))\n"
        "    assert found_in(cache, [1, 2]) == [1, 2]\n"
        "    sys.exit()\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert not os.path.exists(sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0
    with make(path) as cache:
        assert found_in(cache, [1, 2]) == [1]


def test_a_disk_that_fails_later_is_said_once_a_save(path):
    cache = make(path)
    cache.put_many(items_of([1]))
    path.mkdir()  # in the way
    with structlog.testing.capture_logs() as events:
        cache.close()
    (event,) = [event for event in events if event["log_level"] == "warning"]
    assert event["event"] == "embellama.cache.skipped"
    assert "cannot be written" in event["error"]


@pytest.mark.parametrize("name", ["file/vectors.cache", "folder", "nul\0"])
def test_a_path_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"cannot be written|NUL"):
        make(tmp_path / name)


def test_a_damaged_file_is_set_aside(path):
    path.parent.mkdir()
    path.write_text("no cache")
    with structlog.testing.capture_logs() as events, make(path) as cache:
        cache.put_many(items_of([1]))
    assert [event["event"] for event in events] == [
        "embellama.cache.set_aside",
        "embellama.cache.saved",
    ]

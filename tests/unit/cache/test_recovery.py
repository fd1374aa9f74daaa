"""Files that are not what they were: each is set aside, and none gives a wrong vector."""

import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import structlog

from embellama.cache.disk import DiskCache
from tests.unit.cache.vectors import found_in, items_of, key_of

COUNT = 300


@pytest.fixture
def path(tmp_path):
    """A file with vectors 0 to 299, whole and closed."""
    path = tmp_path / "cache.db"
    cache = DiskCache(path, max_bytes=None)
    cache.put_many(items_of(range(COUNT)))
    cache.close()
    return path


def opened(path) -> DiskCache:
    return DiskCache(path, max_bytes=None)


def damaged_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("cache.db.damaged-*"))


def check_fresh(cache: DiskCache, path: Path, before: bytes, events: list) -> None:
    """The old bytes are kept under another name, it was said, and a new file is in use."""
    assert found_in(cache, range(COUNT)) == []
    cache.put_many(items_of([5]))
    assert found_in(cache, range(COUNT)) == [5]
    aside = [path.parent / name for name in damaged_files(path)]
    assert [file.read_bytes() for file in aside] == [before]
    assert [event["event"] for event in events] == ["embellama.cache.set_aside"]
    assert events[0]["now"] == str(aside[0])
    assert cache.stats().corrupt == 1
    assert cache.stats().failures == 0
    cache.close()


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
def test_a_truncated_file(path, keep):
    before = path.read_bytes()
    before = before[: int(len(before) * keep)]
    path.write_bytes(before)
    with structlog.testing.capture_logs() as events:
        cache = opened(path)
        check_fresh(cache, path, before, events)


def test_a_bit_that_flips_in_a_vector(path):
    """SQLite has no checksum and gives the damaged row as if it were sound."""
    before = bytearray(path.read_bytes())
    row = items_of([123])[0][1].vector.tobytes()
    before[before.index(row) + 700] ^= 4
    path.write_bytes(before)
    cache = opened(path)
    assert len(found_in(cache, range(100))) == 100  # the others are sound
    with structlog.testing.capture_logs() as events:
        assert found_in(cache, [123]) == []
    assert "checksum" in events[0]["reason"]
    check_fresh(cache, path, bytes(before), events)


def test_a_page_of_zeros(path):
    before = bytearray(path.read_bytes())
    for start in range(4096 * 3, len(before) - 4096, 4096 * 7):
        before[start : start + 4096] = bytes(4096)
    path.write_bytes(before)
    with structlog.testing.capture_logs() as events:
        cache = opened(path)
        assert found_in(cache, range(COUNT)) == []
        check_fresh(cache, path, bytes(before), events)


def foreign_text(path: Path) -> None:
    path.write_text("Dear diary, " * 1000)


def foreign_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE entries (key BLOB, id INTEGER, generation INTEGER)")
    connection.execute("CREATE TABLE vectors (id INTEGER, record BLOB)")
    connection.commit()
    connection.close()


def another_version(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


def other_tables(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE vectors RENAME COLUMN record TO other")
    connection.close()


@pytest.mark.parametrize(
    "change",
    [foreign_text, foreign_database, another_version, other_tables],
    ids=lambda f: f.__name__,
)
def test_a_foreign_file(path, change):
    change(path)
    before = path.read_bytes()
    with structlog.testing.capture_logs() as events:
        cache = opened(path)
        check_fresh(cache, path, before, events)


def test_an_empty_file_is_taken_as_it_is(path):
    path.write_bytes(b"")
    cache = opened(path)
    cache.put_many(items_of([1]))
    assert found_in(cache, [0, 1]) == [1]
    assert damaged_files(path) == []
    cache.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET id = (SELECT id FROM entries WHERE key <> ? LIMIT 1) WHERE key = ?",
        "UPDATE vectors SET record = 'text' WHERE ? <> ?",
        "UPDATE vectors SET record = 5 WHERE ? <> ?",
        "UPDATE entries SET generation = 'new' WHERE key <> ? OR key = ?",
        "UPDATE entries SET id = 4611686018427387905 WHERE key <> ? AND key = ?",
    ],
)
def test_rows_that_no_cache_has_written(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement, (key_of(1), key_of(2)))
    connection.commit()
    connection.close()
    cache = opened(path)
    assert 2 not in found_in(cache, range(COUNT))
    cache.put_many(items_of([2]))
    assert found_in(cache, [2]) == [2]
    cache.close()


def test_the_largest_id_there_can_be(path):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE vectors SET id = 9223372036854775807 WHERE id = 300")
    connection.commit()
    connection.close()
    cache = opened(path)
    cache.put_many(items_of([1000]))
    assert found_in(cache, [1000]) == [1000]
    assert cache.stats().corrupt == 1
    cache.close()


def test_damage_in_use_moves_every_cache_of_the_process(path):
    first, second = opened(path), opened(path)
    assert len(found_in(second, range(COUNT))) == COUNT
    scribble_over(path)
    first.put_many(items_of(range(1000, 1200)))
    assert found_in(first, range(900, 1300)) == list(range(1000, 1200))
    # the second notices that its file has moved: it neither reads nor writes the old one
    second.put_many(items_of([2000]))
    assert found_in(second, range(3000)) == [*range(1000, 1200), 2000]
    assert found_in(first, [2000]) == [2000]
    assert first.stats().corrupt == 1
    assert second.stats().corrupt == 0
    first.close()
    second.close()


def scribble_over(path: Path) -> None:
    """Overwrite the pages of a file behind SQLite's back, with something in its log."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


@pytest.mark.skipif(sys.platform == "win32", reason="needs to rename an open file")
def test_another_process_in_the_old_file_does_not_harm_the_new_one(path):
    """The trap: the last to close a SQLite file deletes its log by name, which is the new one's."""
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert other.stdout.readline() == "put\n"
        cache = opened(path)
        scribble_over(path)
        cache.put_many(items_of(range(1000, 1500)))
        assert len(damaged_files(path)) == 3
        log = Path(f"{path}-wal")
        size = log.stat().st_size
        assert size > 500 * 384 * 4
        out, _ = other.communicate("close the old file\n", timeout=60)
        assert out == "closed\n"
    finally:
        other.kill()
        other.communicate()
    assert log.stat().st_size == size
    third = opened(path)  # would not see what is in the log if that had been deleted
    assert found_in(third, range(900, 1600)) == list(range(1000, 1500))
    third.close()
    cache.close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


OTHER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from embellama.cache.disk import DiskCache
    from tests.unit.cache.vectors import items_of
    cache = DiskCache(Path(sys.argv[1]), max_bytes=None)
    cache.put_many(items_of(range(500, 510)))
    print("put", flush=True)
    sys.stdin.readline()
    cache.close()
    print("closed", flush=True)
    """
)


def test_companions_without_their_database_are_not_paired_with_a_new_one(path):
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").write_bytes(b"from another life" * 100)
    path.unlink()
    with structlog.testing.capture_logs() as events:
        cache = opened(path)
    assert [event["event"] for event in events] == ["embellama.cache.set_aside"]
    assert {name[-4:] for name in damaged_files(path)} == {"-wal", "-shm"}
    assert found_in(cache, range(COUNT)) == []
    cache.close()


@pytest.mark.skipif(sys.platform == "win32", reason="needs to delete an open file")
def test_companions_of_a_file_that_a_killed_process_left_are_deleted_with_it(path):
    """Its log has vectors in it that the file has not: whoever deletes the file deletes them."""
    writer = opened(path)
    writer.put_many(items_of(range(1000, 1100)))
    left = {suffix: Path(f"{path}{suffix}").read_bytes() for suffix in ("-wal", "-shm")}
    writer.close()
    for suffix, content in left.items():
        assert len(content) > 32_000
        Path(f"{path}{suffix}").write_bytes(content)
    path.unlink()
    with structlog.testing.capture_logs() as events:
        cache = opened(path)
    assert [event["event"] for event in events] == ["embellama.cache.leftovers_deleted"]
    assert damaged_files(path) == []
    assert found_in(cache, range(1200)) == []
    cache.close()


def test_a_file_that_is_only_named_like_a_log_is_not_deleted(path):
    path.unlink()
    Path(f"{path}-wal").write_text("notes on a wall")
    Path(f"{path}-shm").write_bytes(b"")
    opened(path).close()
    [kept] = [name for name in damaged_files(path) if name.endswith("-wal")]
    assert (path.parent / kept).read_text() == "notes on a wall"


def test_two_set_aside_in_the_same_second_have_two_names(path):
    for _ in range(3):
        path.write_text("no database")
        opened(path).close()
    assert len(damaged_files(path)) == 3


def test_an_export_that_meets_damage_does_not_pass_for_whole(path):
    content = bytearray(path.read_bytes())
    content[content.index(items_of([123])[0][1].vector.tobytes())] ^= 1
    path.write_bytes(content)
    cache = opened(path)
    with pytest.raises(OSError, match="could not be read to its end"):
        list(cache.entries())
    cache.close()

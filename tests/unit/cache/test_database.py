import sqlite3

import pytest

from embellama.cache.database import Database
from embellama.cache.recovery import set_aside


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


@pytest.fixture
def database(path):
    database = Database(path, busy_timeout_s=5.0)
    yield database
    database.close()


def insert(connection: sqlite3.Connection) -> bool:
    connection.execute("INSERT INTO vectors VALUES (1, x'00')")
    return True


def count(connection: sqlite3.Connection) -> int:
    return connection.execute("SELECT count(*) FROM vectors").fetchone()[0]


def test_what_is_committed_to_a_file_that_has_just_moved_is_written_again(database, path):
    runs = []

    def overtaken(connection: sqlite3.Connection) -> bool:
        runs.append(connection)
        if len(runs) == 1:
            set_aside(path, "by another process, between this one's look and its commit")
        return insert(connection)

    assert database.write(overtaken) is True
    assert len(runs) == 2
    assert database.read(count) == 1
    fresh = sqlite3.connect(path)
    assert count(fresh) == 1
    fresh.close()


def test_a_mistake_of_ours_is_not_taken_for_a_fault_of_the_disk(database, path):
    with pytest.raises(sqlite3.ProgrammingError):
        database.read(lambda connection: connection.execute("SELECT ?", ()))
    with pytest.raises(ZeroDivisionError):
        database.write(lambda connection: insert(connection) and 1 // 0)
    assert database.read(count) == 0
    assert (database.n_failures, database.n_damaged) == (0, 0)
    assert [file.name for file in path.parent.glob("*damaged*")] == []


def test_a_transaction_that_was_left_open_is_not_taken_for_damage(database, path):
    database.read(lambda connection: connection.execute("BEGIN"))
    assert database.write(insert) is None
    assert (database.n_failures, database.n_damaged) == (1, 0)
    assert database.read(count) == 0

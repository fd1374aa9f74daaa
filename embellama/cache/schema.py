"""What is in a cache file, and how to tell that a file is one.

::

    entries   key → id, generation     narrow: looked up for every key
    vectors   id  → record             wide: appended to

Keys are spread evenly, so that each new one touches another page; with the records apart, these
pages are few. A generation is the number of a write; eviction takes the smallest.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from embellama.cache.record import DamagedFileError

APPLICATION_ID: Final = 0x454D4C43
"""``EMLC`` in the header of every cache file."""

SCHEMA_VERSION: Final = 1

_WAL_LIMIT_BYTES: Final = 16 << 20

_TABLES: Final = (
    "CREATE TABLE entries (key BLOB PRIMARY KEY, id INTEGER NOT NULL, generation INTEGER NOT NULL)"
    " WITHOUT ROWID",
    "CREATE INDEX entries_by_generation ON entries (generation)",
    "CREATE TABLE vectors (id INTEGER PRIMARY KEY, record BLOB NOT NULL)",
)

MAX_NUMBER: Final = 2**62
"""Ids and generations stay below: a larger one is a damaged one."""


def make_or_check(connection: sqlite3.Connection) -> None:
    """Set up a connection; make the tables of an empty file.

    Nothing is written before the file is known to be empty or a cache.

    Raises:
        DamagedFileError: The file is another program's, or of another version.
    """
    application, version = (
        _number(connection, "application_id"),
        _number(connection, "user_version"),
    )
    empty = _number(connection, "schema_version") == 0 and application == 0 and version == 0
    if not empty and (application, version) != (APPLICATION_ID, SCHEMA_VERSION):
        raise DamagedFileError(
            f"not a cache of this version: application_id {application}, user_version {version}"
        )
    if empty:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # where the file system has no shared memory SQLite keeps its older journal, which is as safe
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}").fetchall()
    if empty:
        _make(connection)
    _check_columns(connection)


def _make(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in _TABLES:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _check_columns(connection: sqlite3.Connection) -> None:
    """Read what every later statement needs; SQLite reports what is not there."""
    connection.execute("SELECT key, id, generation FROM entries LIMIT 1").fetchall()
    connection.execute("SELECT id, record FROM vectors LIMIT 1").fetchall()


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return checked_number(connection.execute(f"PRAGMA {pragma}").fetchone()[0], least=-MAX_NUMBER)


def checked_number(value: object, *, least: int = 0) -> int:
    """Check a number out of a file.

    Raises:
        DamagedFileError: It is no number, or none that was written.
    """
    if not isinstance(value, int) or not least <= value < MAX_NUMBER:
        raise DamagedFileError(f"{value!r:.40} where a small number was written")
    return value

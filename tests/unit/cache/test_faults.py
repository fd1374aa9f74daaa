import sqlite3

import pytest

from embellama.cache.faults import told, verdict_on
from embellama.cache.record import DamagedFileError

CODES = {
    name: code
    for name, code in vars(sqlite3).items()
    if name.startswith("SQLITE_") and isinstance(code, int) and code > 0
}
"""Names that begin like a result, among them those of limits and permissions."""

DAMAGED = {"CORRUPT", "NOTADB", "FORMAT", "SCHEMA", "CONSTRAINT", "MISMATCH", "TOOBIG"}


def error_of(code: int, message: str = "said") -> sqlite3.Error:
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_file(name):
    assert verdict_on(error_of(CODES[f"SQLITE_{name}"])) == "damaged"


@pytest.mark.parametrize(
    "name", ["CORRUPT_VTAB", "CORRUPT_INDEX", "CONSTRAINT_NOTNULL", "IOERR_SHORT_READ"]
)
def test_an_extended_code_of_damage(name):
    assert verdict_on(error_of(CODES[f"SQLITE_{name}"])) == "damaged"


UNAVAILABLE = """
LOCKED FULL READONLY READONLY_DBMOVED IOERR IOERR_WRITE CANTOPEN PERM NOMEM
PROTOCOL INTERRUPT
"""


@pytest.mark.parametrize("name", UNAVAILABLE.split())
def test_a_file_that_cannot_be_used_now(name):
    assert verdict_on(error_of(CODES[f"SQLITE_{name}"])) == "unavailable"


@pytest.mark.parametrize("name", ["BUSY", "BUSY_RECOVERY", "BUSY_SNAPSHOT"])
def test_a_file_that_others_use(name):
    assert verdict_on(error_of(CODES[f"SQLITE_{name}"])) == "busy"


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("no such table: entries", "damaged"),
        ("table entries has 2 columns but 3 values were supplied", "damaged"),
        ("cannot start a transaction within a transaction", "unavailable"),
    ],
)
def test_the_catch_all_code_is_read_by_its_message(message, verdict):
    assert verdict_on(error_of(sqlite3.SQLITE_ERROR, message)) == verdict


def test_the_rest():
    assert verdict_on(sqlite3.ProgrammingError("Cannot operate on a closed database.")) == "fault"
    assert verdict_on(ZeroDivisionError()) == "fault"
    assert verdict_on(PermissionError(13, "Permission denied")) == "unavailable"
    assert verdict_on(TimeoutError()) == "busy"  # the lock file's
    assert verdict_on(DamagedFileError("a record")) == "damaged"
    assert verdict_on(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no")) == "damaged"


def test_what_is_told():
    assert told(PermissionError(13, "Permission denied")) == "Permission denied"
    assert told(TimeoutError()) == "TimeoutError"
    error = error_of(sqlite3.SQLITE_FULL, "database or disk is full")
    error.sqlite_errorname = "SQLITE_FULL"
    assert told(error) == "database or disk is full, SQLITE_FULL"

"""What an error means for a cache: the file is damaged, in use by others, or not usable now."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal, TypeAlias

from embellama.cache.record import DamagedFileError

Verdict: TypeAlias = Literal["damaged", "busy", "unavailable", "fault"]

EXPECTED: Final = (sqlite3.Error, OSError, DamagedFileError, UnicodeDecodeError)
"""What work on a file raises; the last where SQLite quotes damaged names in its message."""

_DAMAGED: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_SCHEMA,
        # what the schema rules out, and what no row of ours is
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_IOERR_SHORT_READ,
    }
)

_DAMAGED_SCHEMA: Final = ("no such ", "table ", "malformed", "unsupported file format")
"""How messages of the catch-all SQLITE_ERROR begin when tables are not those that were made."""


def verdict_on(error: Exception) -> Verdict:
    """Say what to do about an error: set the file aside, wait, go on without, or raise it.

    Source: https://www.sqlite.org/rescode.html; the low byte of an extended code is its kind.
    """
    if isinstance(error, DamagedFileError | UnicodeDecodeError):
        return "damaged"
    if isinstance(error, OSError):
        return "busy" if isinstance(error, TimeoutError) else "unavailable"
    if isinstance(error, sqlite3.ProgrammingError) or not isinstance(error, sqlite3.Error):
        return "fault"
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None or code == sqlite3.SQLITE_ERROR:
        return "damaged" if str(error).startswith(_DAMAGED_SCHEMA) else "unavailable"
    if code & 0xFF == sqlite3.SQLITE_BUSY:
        return "busy"
    return "damaged" if {code, code & 0xFF} & _DAMAGED else "unavailable"


def told(error: Exception) -> str:
    """Return an error's message for people, with SQLite's name for it where there is one."""
    name = getattr(error, "sqlite_errorname", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{text}, {name}" if name else text

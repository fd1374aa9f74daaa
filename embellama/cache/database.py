"""One process's connection to a cache file, which is made, moved, damaged and locked by others too.

Work is done in calls of `Database.read` and `Database.write`. They never raise for what happens to
a file: damage sets it aside and a fresh one is made, and what cannot be done now is left undone,
with a warning.

The journal is a write-ahead log with ``synchronous=NORMAL``: what was committed survives the death
of any process. When the machine loses power, the latest commits may be gone; the file stays sound.

No connection is open across a fork, not even unused: SQLite remembers in memory which locks its
process has, the child has none of them, and others would take a log away that it still uses. So
the parent closes before it forks, and both open again when they need to.
Source: https://www.sqlite.org/howtocorrupt.html, 2.6.

SQLite itself never waits for other processes here: the thread that waits does so without the lock
on the connection, so that others go on reading, which a write-ahead log allows beside any writer.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from embellama.cache.faults import EXPECTED, told, verdict_on
from embellama.cache.forking import ForkLock
from embellama.cache.record import MAX_RECORD_BYTES
from embellama.cache.recovery import alone, delete, identity_of, remove_leftovers, set_aside
from embellama.cache.schema import make_or_check
from embellama.errors import ConfigurationError
from embellama.logs import log

T = TypeVar("T")
Operation: TypeAlias = Literal["read", "write"]

QUIET_S: Final = 30.0
"""After a failure the same operation is not tried again for this long: trying may block."""

FIRST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.05
"""From one try to the next while others are in the way; each pause is twice the one before."""

_SHRINK: Final = (
    "PRAGMA incremental_vacuum;"
    # the log is cut when no one reads in it, for which a few milliseconds are enough
    "PRAGMA busy_timeout = 100; PRAGMA wal_checkpoint(TRUNCATE); PRAGMA busy_timeout = 0"
)

_abandoned: list[sqlite3.Connection] = []
"""Connections of a parent that forked without telling Python: never used, never closed."""


class Database:
    """A cache file that is open when it is needed. Safe to use from any thread, and after a fork.

    Args:
        path: The file. It and its folder are made.
        busy_timeout_s: How long to wait for other processes that write.

    Raises:
        ConfigurationError: No cache file can be made or used there.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self.path = path
        self.n_damaged = 0
        self.n_failures = 0
        self._busy_timeout_s = busy_timeout_s
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._process_id = os.getpid()
        self._closed = False
        self._quiet_until: dict[Operation, float] = {"read": 0.0, "write": 0.0}
        self._lock = ForkLock(self._disconnect)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise OSError("it is no regular file")
            self._patiently(self._open)
        except (*EXPECTED, ValueError) as exc:
            raise ConfigurationError(
                f"the cache file {str(path)!r} cannot be used ({told(exc)}): name a file in a "
                "folder that is on a local disk, writable and not full"
            ) from exc

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do some work that changes nothing; None where it cannot be done."""
        return self._attempt("read", work)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do some work in one transaction; None where it cannot be done.

        It is done again where another process has replaced the file meanwhile.
        """

        def transaction(connection: sqlite3.Connection) -> T:
            result = _in_transaction(connection, work)
            if identity_of(self.path) != self._identity:
                result = _in_transaction(self._current(), work)
            return result

        return self._attempt("write", transaction)

    def shrink(self) -> None:
        """Give the room that nothing is in back to the file system, where that can be done now."""
        self._attempt("write", lambda connection: connection.executescript(_SHRINK))

    def remove(self) -> None:
        """Delete the file; the next operation makes a fresh one, also in other processes.

        Raises:
            ConfigurationError: It cannot be deleted, or the connection is closed.
        """
        try:
            self._patiently(self._remove)
        except OSError as exc:
            raise ConfigurationError(
                f"the cache file {str(self.path)!r} can neither be emptied nor deleted "
                f"({told(exc)}): delete it, with those beside it, while nothing uses it"
            ) from exc

    def close(self) -> None:
        """Let go of the file. From then on nothing is read or written."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def __del__(self) -> None:
        self._disconnect()

    def _attempt(self, operation: Operation, work: Callable[[sqlite3.Connection], T]) -> T | None:
        def attempt() -> T | None:
            if self._closed:
                return None
            if time.monotonic() < self._quiet_until[operation]:
                self.n_failures += 1
                return None
            return self._done_or_replaced(work)

        try:
            return self._patiently(attempt)
        except EXPECTED as exc:
            if verdict_on(exc) == "fault":
                raise
            self._give_up(operation, exc)
            return None

    def _patiently(self, step: Callable[[], T]) -> T:
        """Do something with the lock held, again and again while others are in its way."""
        end = time.monotonic() + self._busy_timeout_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                with self._lock:
                    return step()
            except EXPECTED as exc:
                if verdict_on(exc) != "busy" or time.monotonic() + pause_s > end:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _remove(self) -> None:
        if self._closed:
            raise ConfigurationError("the cache is closed; make a new one")
        with alone(self.path):
            self._disconnect()
            delete(self.path)
        self._quiet_until = {"read": 0.0, "write": 0.0}

    def _done_or_replaced(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work; where the file turns out damaged, do it on a fresh one."""
        try:
            return work(self._current())
        except EXPECTED as exc:
            if verdict_on(exc) != "damaged":
                raise
            self._replace(told(exc))
            return work(self._current())

    def _give_up(self, operation: Operation, exc: Exception) -> None:
        with self._lock:
            self.n_failures += 1
            self._quiet_until[operation] = time.monotonic() + QUIET_S
            self._disconnect()
        log.warning(
            "embellama.cache.skipped",
            path=str(self.path),
            operation=operation,
            error=told(exc),
            quiet_s=QUIET_S,
        )

    def _current(self) -> sqlite3.Connection:
        """Give a connection to the file that is under the path now."""
        if self._connection is not None:
            if self._process_id != os.getpid():
                self._closed = True
                raise OSError("this process was forked without Python's knowledge; no cache in it")
            if identity_of(self.path) == self._identity:
                return self._connection
            log.info("embellama.cache.reopened", path=str(self.path))
        self._disconnect()
        return self._open()

    def _open(self) -> sqlite3.Connection:
        with alone(self.path):
            remove_leftovers(self.path)
            try:
                connection = self._connect()
            except EXPECTED as exc:
                if verdict_on(exc) != "damaged":
                    raise
                self.n_damaged += 1
                set_aside(self.path, told(exc))
                connection = self._connect()
            self._connection, self._process_id = connection, os.getpid()
            self._identity = identity_of(self.path)
            return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=0.0,  # see above
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # so that a damaged length asks for no memory, and a damaged type is no text to decode
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES)
            connection.text_factory = bytes
            make_or_check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _replace(self, reason: str) -> None:
        """Set the open file aside, unless another process has done so."""
        with alone(self.path):
            # closed before it is renamed: Windows renames no open file
            self._disconnect()
            if identity_of(self.path) == self._identity:
                self.n_damaged += 1
                set_aside(self.path, reason)

    def _disconnect(self) -> None:
        """Close the connection, if there is one; the next operation opens another."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._process_id != os.getpid():
            _abandoned.append(connection)
            return
        with suppress(sqlite3.Error):  # of a damaged file; the operating system closes it then
            connection.close()


def _in_transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # some errors, of a full disk for one, have rolled back already
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result

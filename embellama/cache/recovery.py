"""Damaged and foreign files: out of the way under another name, never deleted.

Renaming a SQLite file while others have it open is a trap: they go on in the old file, and a new
one made meanwhile could be paired with the old one's log. So every open and every renaming of ours
happens under one file lock; the database is renamed before its companions, which is how SQLite
(3.8.3 on) sees that the file has moved, and then leaves the companions of the new one alone;
companions without a database are moved before one is made; and each process compares the file's
identity before and after it works (`database.py`).

Source: https://www.sqlite.org/howtocorrupt.html, 2.4 and 4.2; ``databaseIsUnmoved`` in pager.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock

from embellama.logs import log

COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, in the order in which a set-aside moves them."""


@contextmanager
def alone(path: Path, timeout_s: float) -> Iterator[None]:
    """Keep every other process and thread from opening, making or renaming a cache file.

    Raises:
        OSError: The lock file cannot be made, or stayed taken for the time (``TimeoutError``).
    """
    with FileLock(f"{path}.lock", timeout=timeout_s):
        yield


def identity_of(path: Path) -> tuple[int, int] | None:
    """Say which file is under a path now: device and inode. None: no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def set_aside(path: Path, reason: str) -> Path:
    """Rename a file and what SQLite keeps beside it to ``<name>.damaged-<time>``; warn.

    The caller holds `alone`. The new names fit together, so that SQLite's own tools can look.

    Raises:
        OSError: It cannot be renamed.
    """
    aside = _free_name(path)
    os.rename(path, aside)
    _move_companions(path, aside)
    log.warning("embellama.cache.set_aside", path=str(path), now=str(aside), reason=reason)
    return aside


def set_aside_leftovers(path: Path) -> None:
    """Move companions whose database is gone, so that no new one is paired with them."""
    if not path.exists() and any(_beside(path, suffix).exists() for suffix in COMPANIONS):
        aside = _free_name(path)
        _move_companions(path, aside)
        log.warning(
            "embellama.cache.set_aside",
            path=str(path),
            now=str(aside),
            reason="SQLite's companion files without their database",
        )


def delete(path: Path) -> None:
    """Delete a file and what SQLite keeps beside it; the caller holds `alone`.

    Raises:
        OSError: It cannot be deleted.
    """
    for suffix in ("", *COMPANIONS):
        _beside(path, suffix).unlink(missing_ok=True)


def _move_companions(path: Path, aside: Path) -> None:
    for suffix in COMPANIONS:
        try:
            os.rename(_beside(path, suffix), _beside(aside, suffix))
        except FileNotFoundError:
            continue


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _free_name(path: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    number = 1
    while True:
        ending = stamp if number == 1 else f"{stamp}-{number}"
        aside = path.with_name(f"{path.name}.damaged-{ending}")
        if not any(_beside(aside, suffix).exists() for suffix in ("", *COMPANIONS)):
            return aside
        number += 1

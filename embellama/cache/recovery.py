"""Damaged and foreign files: out of the way under another name, never deleted.

Only what SQLite kept beside a database that is gone is deleted: people empty a cache by deleting
its file, also while it is in use.

Renaming a SQLite file while others have it open is a trap: they go on in the old file, and a new
one made meanwhile could be paired with the old one's log. So every open and every renaming of ours
happens under one file lock; the database is renamed before its companions, which is how SQLite
(3.8.3 on) sees that the file has moved, and then leaves the companions of the new one alone;
companions without a database go before one is made; and each process compares the file's
identity before and after it works (`database.py`).

Source: https://www.sqlite.org/howtocorrupt.html, 2.4 and 4.2; ``databaseIsUnmoved`` in pager.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from filelock import FileLock

from embellama.logs import log

COMPANIONS: Final = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database, in the order in which a set-aside moves them."""

_BEGINNINGS: Final = (
    b"\x37\x7f\x06\x82",
    b"\x37\x7f\x06\x83",
    b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
    struct.pack("=I", 3_007_000),
)
"""Of a write-ahead log by its byte order, of a rollback journal, and of the log's index.

Source: https://www.sqlite.org/fileformat2.html, 3 and 4.1; walformat.html, 2.1.
"""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep every other process and thread from opening, making or renaming a cache file.

    Raises:
        TimeoutError: Another has the lock now; it is not waited for.
        OSError: The lock file cannot be made.
    """
    with FileLock(f"{path}.lock", blocking=False):
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


def remove_leftovers(path: Path) -> None:
    """Delete companions whose database is gone, so that no new one is paired with them.

    Files that only have their names are set aside. The caller holds `alone`.

    Raises:
        OSError: They can be neither read nor deleted.
    """
    beside = [_beside(path, suffix) for suffix in COMPANIONS]
    left = [companion for companion in beside if companion.exists()]
    if not left or path.exists():
        return
    if all(map(_is_of_sqlite, left)):
        for companion in left:
            companion.unlink(missing_ok=True)
        log.info("embellama.cache.leftovers_deleted", path=str(path), n_files=len(left))
        return
    aside = _free_name(path)
    _move_companions(path, aside)
    log.warning(
        "embellama.cache.set_aside",
        path=str(path),
        now=str(aside),
        reason="files named like SQLite's own, without their database",
    )


def _is_of_sqlite(companion: Path) -> bool:
    try:
        with companion.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:  # SQLite has just deleted it
        return True
    # an empty one, or one of zeros, was made and not used yet
    return not any(head) or head.startswith(_BEGINNINGS)


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

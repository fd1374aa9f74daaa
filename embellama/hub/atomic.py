"""Large files that appear complete or not at all, with errors that say how much room is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embellama import files
from embellama.errors import ConversionError


@contextmanager
def replacing(target: Path, n_bytes: int) -> Iterator[Path]:
    """Give a path for a large file, as `files.replacing` does, where there is room for it.

    Args:
        target: The file to make or replace. Its folder is made.
        n_bytes: About how large it will be.

    Raises:
        ConversionError: There is no room for it, or it cannot be written.
    """
    if "\0" in str(target):
        raise ConversionError(f"{str(target)!r} has a NUL, which no path can have; leave it out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_space(target, n_bytes)
        with files.replacing(target) as path:
            yield path
    except OSError as exc:
        free = _free(target.parent)
        room = f"{n_bytes} bytes are needed" + ("" if free is None else f", {free} are free")
        raise ConversionError(
            f"{str(target)!r} cannot be written ({exc.strerror or exc}): {room}; make room, check "
            "the folder's rights, or write elsewhere"
        ) from exc


def _check_space(target: Path, n_bytes: int) -> None:
    free = _free(target.parent)
    if free is not None and free < n_bytes:
        raise ConversionError(
            f"there is no room for {str(target)!r}: {n_bytes} bytes are needed, {free} are free; "
            "make room or write elsewhere"
        )


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:  # some network file systems do not tell, and writing will
        return None

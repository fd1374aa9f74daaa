"""A progress bar on standard error, or the caller's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


def _silent(done: int, total: int) -> None:
    pass


@contextmanager
def reporting(
    progress: bool | Callable[[int, int], None], *, total: int
) -> Iterator[Callable[[int, int], None]]:
    """Give what is to be told (done, total); a bar is drawn only if ``progress`` is True."""
    if callable(progress):
        yield progress
    elif not progress:
        yield _silent
    else:
        with tqdm(total=total, unit="text", desc="embed", leave=False) as bar:

            def advance(done: int, total: int) -> None:
                bar.update(done - bar.n)

            yield advance

"""Tokens counted on a thread, no further than it matters, and no longer than somebody waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

from embellama.server.service import Service
from embellama.server.token_ids import Item

T = TypeVar("T")

CHARS_A_PIECE = 1 << 16
"""Characters that are tokenized between two looks whether it is enough, or of no use any more."""

_FAR = 1 << 62


async def on_thread_to_its_end(work: Callable[[], T], gone: threading.Event) -> T:
    """Have a thread do work, and wait for its end also where nobody wants it any more.

    A thread cannot be cancelled: what it holds is free when it has ended, and no sooner.

    Args:
        work: The work, which looks at ``gone`` often.
        gone: Set where it is of no use any more.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        gone.set()
        # whatever becomes of it is nobody's concern now
        with suppress(Exception):
            await working
        raise


async def count_tokens(
    service: Service, name: str, texts: Sequence[Item], *, most: int, most_each: int = _FAR
) -> int:
    """Count tokens, special ones included, until there are more than it takes to know.

    A long text is counted in pieces, so that a word that is divided there counts as more.

    Args:
        service: The server.
        name: A loaded model.
        texts: The texts.
        most: Tokens after which the count ends, with a number above it.
        most_each: Most tokens that a text counts as.
    """
    n_special = service.engine.get_model_info(name).n_special_tokens
    gone = threading.Event()

    def of_one(text: Item, limit: int) -> int:
        if not isinstance(text, str):
            return len(text)
        n_tokens = n_special
        for piece in _pieces(text):
            if n_tokens > limit or gone.is_set():
                break
            n_tokens += service.engine.count_tokens(name, piece) - n_special
        return n_tokens

    def count() -> int:
        n_tokens = 0
        for text in texts:
            if n_tokens > most or gone.is_set():
                break
            limit = min(most_each, most - n_tokens)
            n_tokens += min(of_one(text, limit), most_each)
        return n_tokens

    return await on_thread_to_its_end(count, gone)


def _pieces(text: str) -> Iterator[str]:
    """Divide a text, at spaces where there are any near."""
    start = 0
    while len(text) - start > CHARS_A_PIECE:
        stop = start + CHARS_A_PIECE
        space = text.rfind(" ", stop - CHARS_A_PIECE // 8, stop)
        stop = stop if space <= start else space
        yield text[start:stop]
        start = stop
    yield text[start:]

"""Slow work beside the event loop, on threads that neither wait for others nor are waited for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def on_thread(work: Callable[[], T]) -> T:
    """Run what may take minutes on a thread of its own.

    asyncio's own threads are few, so that slow loads would keep short work from them, and the end
    of the process waits for all of them. It does not wait for this one.

    Args:
        work: What to do.

    Raises:
        Exception: What the work raises.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # from now on it is not cancelled, only left alone

    def run() -> None:
        try:
            result = work()
        except BaseException as exc:  # noqa: BLE001 - who waits is told, whatever it is
            future.set_exception(exc)
        else:
            future.set_result(result)

    context = contextvars.copy_context()  # what the log says of the request that asked
    threading.Thread(target=context.run, args=(run,), name="embellama-load", daemon=True).start()
    return await asyncio.wrap_future(future)

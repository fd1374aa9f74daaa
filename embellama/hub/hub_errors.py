"""Calls of huggingface-hub that end in time, in silence, and in errors of ours.

Its exceptions come from requests, httpx or httpx2, depending on its version; they are told apart by
what they carry, not by their classes.
"""

from __future__ import annotations

import errno
import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import constants

from embellama.errors import DownloadError, ModelError, ModelNotFoundError
from embellama.hub.store import HUB_CACHE_VARIABLE, hub_cache_directory, storing_in
from embellama.logs import log

_T = TypeVar("_T")

_STORAGE_ERRORS = frozenset(
    {
        errno.EACCES, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR,
        errno.ENAMETOOLONG, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
    }
)  # fmt: skip
"""What a file system says; everything else with a number is the network's."""

_RETRYABLE = frozenset({408, 425, 429})
"""Statuses below 500 after which the same request may succeed. Source: RFC 9110, RFC 6585."""


def hub_call(
    call: Callable[[], _T], *, what: str, endpoint: str, deadline_s: float | None = None
) -> _T:
    """Make a call of huggingface-hub and translate how it fails.

    Args:
        call: The call.
        what: What is looked for, for the message.
        endpoint: The hub's address, for the message.
        deadline_s: Give up waiting after this long. A time-out of a connection alone does not do:
            it holds for each of a host's addresses, and name servers have their own.

    Raises:
        ModelNotFoundError: The hub answered 404.
        DownloadError: Everything else that can go wrong.
    """
    started = time.monotonic()
    importlib.import_module("huggingface_hub.utils")  # makes the log handler that is kept quiet
    try:
        if deadline_s is None:
            with _logs_captured():
                return call()
        return _within(call, deadline_s)
    except ModelError:
        raise
    except _foreign_errors() as exc:
        elapsed_s = time.monotonic() - started
        log.info("embellama.hub.failed", what=what, error=repr(exc), elapsed_s=round(elapsed_s, 3))
        raise _translated(exc, what, endpoint, elapsed_s) from exc


def _foreign_errors() -> tuple[type[BaseException], ...]:
    errors = importlib.import_module("huggingface_hub.errors")  # pulls in an HTTP client: late
    transport = errors.HfHubHTTPError.__mro__[1]
    xet = getattr(errors, "XetDownloadError", OSError)
    return (transport, xet, OSError, ValueError, RuntimeError, TypeError, KeyError, AttributeError)


def _within(call: Callable[[], _T], deadline_s: float) -> _T:
    """Run a call in a thread that is left to itself when the time is over."""
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            with _logs_captured():
                outcome.append(call())
        except BaseException as exc:  # noqa: BLE001 - handed to the caller
            failure.append(exc)

    thread = threading.Thread(target=run, name="embellama-hub", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if failure:
        raise failure[0]
    if not outcome:
        raise TimeoutError(f"no answer within {deadline_s:g} s")
    return outcome[0]


def _translated(exc: BaseException, what: str, endpoint: str, elapsed_s: float) -> ModelError:
    status = _status_of(exc)
    if status is None and isinstance(exc, OSError) and exc.errno in _STORAGE_ERRORS:
        return _storage_error(exc)
    if status is None:
        return _connection_error(exc, what, endpoint, elapsed_s)
    if status == 404:
        return ModelNotFoundError(f"{what} is not on {endpoint} (404); check the spelling")
    if status in (401, 403):
        return DownloadError(
            f"{endpoint} refused {what} ({status}): it does not exist, or is private or gated. "
            "Accept its terms on its page where it has any, and set HF_TOKEN to a token that may "
            "read it",
            status=status,
        )
    retryable = status >= 500 or status in _RETRYABLE
    return DownloadError(
        f"{endpoint} answered {status} when asked for {what}; "
        + ("try again later" if retryable else "check HF_ENDPOINT"),
        status=status,
        retryable=retryable,
    )


def _connection_error(
    exc: BaseException, what: str, endpoint: str, elapsed_s: float
) -> DownloadError:
    reason = _reason(exc)
    if "consistency check" in reason.lower():
        return DownloadError(
            f"the connection to {endpoint} broke before {what} was complete; nothing of it was "
            "kept. Try again",
            retryable=True,
        )
    if isinstance(exc, ValueError | TypeError | KeyError | AttributeError):
        return DownloadError(
            f"what {endpoint} answered when asked for {what} is not a hub's answer ({reason}); "
            "check HF_ENDPOINT and any proxy"
        )
    return DownloadError(
        f"{endpoint} not reachable after {elapsed_s:.1f} s ({reason}); it was asked for {what}. "
        "Check the connection, or set HF_ENDPOINT to a mirror",
        retryable=True,
    )


def _storage_error(exc: OSError) -> DownloadError:
    try:
        with storing_in(hub_cache_directory(), HUB_CACHE_VARIABLE):
            raise exc
    except DownloadError as error:
        return error


def _status_of(exc: BaseException) -> int | None:
    seen: BaseException | None = exc
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(status, int) and status >= 400:
            return status
        seen = seen.__cause__
    return None


def _reason(exc: BaseException) -> str:
    """Say in one line why, by the innermost cause that says anything."""
    cause = exc
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = (str(cause) or str(exc)).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0]}".rstrip(": ")[:200]


@contextmanager
def _logs_captured() -> Iterator[None]:
    """Send what huggingface-hub logs in this thread to our log, not to its handler on stderr."""
    ident = threading.get_ident()

    def keep_quiet(record: logging.LogRecord) -> bool:
        if record.thread != ident:
            return True
        log.debug("embellama.hub.logged", level=record.levelname, text=record.getMessage())
        return False

    handlers = list(logging.getLogger("huggingface_hub").handlers)
    for handler in handlers:
        handler.addFilter(keep_quiet)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(keep_quiet)


@contextmanager
def quiet_hub(*, progress_bar: bool) -> Iterator[None]:
    """Keep the progress bar off in versions of huggingface-hub where that is one global switch."""
    utils: Any = importlib.import_module("huggingface_hub.utils")
    if progress_bar or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None:
        yield
        return
    was_disabled = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not was_disabled:
            utils.enable_progress_bars()

"""How the server's log is written: an object a line for machines, or a line for people.

While `written_log` is entered, all that is said in the process goes the same way: the events of
embellama, the lines of other libraries, warnings, and what a thread dies of. Nothing that a client
sent is part of it: of an exception there is the type and the place, since its message may quote a
text.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, Any, Literal

import structlog

from embellama.server.exchange import json_line
from embellama.server.settings import LogLevel

Form = Literal["json", "text"]

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_WORD = re.compile(r"[\w./:@%+,-]+", re.ASCII)
"""Values that people can read without quotes around them."""

_SENTENCE = re.compile(r"[\w./:@%+,' -]+", re.ASCII)
"""Events that they can, among them other libraries' messages."""

_OWN = frozenset({"timestamp", "level"})
"""Fields of every line; an event's own of the same name gets another."""

_N_FRAMES = 3


def where(error: BaseException | None) -> list[str]:
    """Return where an exception was raised, the innermost place first, as ``file:line name``."""
    frames = traceback.extract_tb(error.__traceback__)[-_N_FRAMES:] if error is not None else []
    return [
        f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}"
        for frame in reversed(frames)
    ]


class LogOutput:
    """Writes events to a stream, from any thread. What structlog needs of a logger is there.

    Args:
        stream: Takes text; its bytes are written below it where it has any.
        form: What a line looks like.
    """

    def __init__(self, stream: IO[str], form: Form) -> None:
        self._stream = stream
        self._bytes = getattr(stream, "buffer", None)
        self._line = _json if form == "json" else _text
        self._lock = threading.Lock()
        self._n_lost = 0

    def render(self, logger: object, level: str, fields: MutableMapping[str, Any]) -> bytes:
        """Make a line of an event; the last of structlog's processors, and the only one."""
        for name in _OWN & fields.keys():
            fields[f"{name}_"] = fields.pop(name)
        return self._line(
            {
                "timestamp": datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z",
                "level": level,
                "event": fields.pop("event", None),
                **structlog.contextvars.get_contextvars(),
                **fields,
            }
        )

    def write(self, line: bytes) -> None:
        """Write a line; where nobody can read it any more, requests are answered all the same."""
        with self._lock:
            try:
                if self._n_lost:
                    event = {"event": "embellama.log.lost", "n_lines": self._n_lost}
                    self._put(self.render(None, "warning", event))
                    self._n_lost = 0
                self._put(line)
            except (OSError, ValueError):  # a pipe without a reader, a full disk, a closed stream
                self._n_lost += 1

    def _put(self, line: bytes) -> None:
        if self._bytes is None:
            self._stream.write(line.decode())
            self._stream.flush()
        else:
            self._bytes.write(line)
            self._bytes.flush()

    debug = info = warning = error = critical = exception = log = msg = write

    def tell(self, level: str, event: str, **fields: Any) -> None:
        """Write an event that does not come by structlog."""
        self.write(self.render(None, level, {"event": event, **fields}))


def _json(fields: object) -> bytes:
    try:
        return json_line(fields)
    except TypeError:  # such as the name of a file that is no Unicode
        return json.dumps(fields, default=repr).encode() + b"\n"


def _text(fields: Mapping[str, Any]) -> bytes:
    rest = {name: value for name, value in fields.items() if value is not None or name == "event"}
    head = f"{rest.pop('timestamp')} {rest.pop('level'):<7} {_shown(rest.pop('event'), _SENTENCE)}"
    told = "".join(f" {name}={_shown(value)}" for name, value in rest.items())
    return f"{head}{told}\n".encode()


def _shown(value: object, plain: re.Pattern[str] = _WORD) -> str:
    """Write a value so that it cannot be taken for another one, or for a new line."""
    if value is None or isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        return _json(value)[:-1].decode()
    if plain.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


class _Bridge(logging.Handler):
    """Writes the lines of other libraries as events."""

    def __init__(self, output: LogOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit its format
            message = str(record.msg)
        if record.name == "asyncio":  # what follows its first line are objects, with what they hold
            message = message.partition("\n")[0]
        if record.name == "uvicorn.error" and message.rstrip().endswith("CancelledError"):
            return  # starlette's traceback of a lifespan that a second signal ended, as it should
        error = record.exc_info[1] if record.exc_info else None
        told = {} if error is None else {"error": type(error).__name__, "where": where(error)}
        level = record.levelname.lower()
        self._output.tell(
            level if level in _LEVELS else "error", message, logger=record.name, **told
        )


@contextmanager
def written_log(level: LogLevel, form: Form, stream: IO[str] | None = None) -> Iterator[None]:
    """Write the log of this process, and leave everything as it was.

    Args:
        level: What is written. Other libraries' lines are, from warnings on; when debugging, from
            informative ones on.
        form: What a line looks like.
        stream: Where to; standard error unless given.
    """
    output = LogOutput(sys.stderr if stream is None else stream, form)
    others = logging.INFO if level == "debug" else max(_LEVELS[level], logging.WARNING)
    with _events_to(output, level), _records_to(output, others), _hooks_to(output):
        yield


@contextmanager
def _events_to(output: LogOutput, level: LogLevel) -> Iterator[None]:
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=[output.render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *names: output,
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


@contextmanager
def _records_to(output: LogOutput, level: int) -> Iterator[None]:
    root, bridge = logging.getLogger(), _Bridge(output)
    bridge.setLevel(level)
    level_before = root.level
    root.addHandler(bridge)
    root.setLevel(level)
    try:
        yield
    finally:
        root.removeHandler(bridge)
        root.setLevel(level_before)


@contextmanager
def _hooks_to(output: LogOutput) -> Iterator[None]:
    show_before, hook_before = warnings.showwarning, threading.excepthook

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: str | None = None,
    ) -> None:
        output.tell(
            "warning",
            "embellama.server.warned",
            category=category.__name__,
            warning=str(message),
            where=f"{os.path.basename(filename)}:{lineno}",
        )

    def failed(told: threading.ExceptHookArgs) -> None:
        output.tell(
            "error",
            "embellama.thread.failed",
            thread=told.thread.name if told.thread is not None else None,
            error=told.exc_type.__name__,
            where=where(told.exc_value),
        )

    warnings.showwarning, threading.excepthook = show, failed
    try:
        yield
    finally:
        warnings.showwarning, threading.excepthook = show_before, hook_before

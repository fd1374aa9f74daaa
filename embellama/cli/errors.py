"""Exit statuses, and what a failure says: one line on standard error, a traceback only if asked."""

from __future__ import annotations

import io
import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from embellama.errors import ConfigurationError, EmbellamaError, InvalidInputError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
"""Source: 128 + SIGINT, as shells report it."""

EXIT_BROKEN_PIPE = 141
"""Source: 128 + SIGPIPE, as shells report it."""


class GuardedGroup(TyperGroup):
    """The commands, with every exception but wrong usage turned into a status and a line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return result
        except BaseException as exc:
            if isinstance(exc, SystemExit) or hasattr(exc, "exit_code"):
                raise  # typer's own: it shows the usage
            raise SystemExit(report(exc, show_traceback=_is_verbose(ctx))) from exc


def _is_verbose(ctx: Any) -> bool:
    return bool(getattr(ctx.obj, "verbosity", 0))


def report(exc: BaseException, *, show_traceback: bool = False) -> int:
    """Say on standard error what went wrong, and return the exit status for it."""
    if isinstance(exc, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    if isinstance(exc, BrokenPipeError):
        _silence(sys.stdout)
        return EXIT_BROKEN_PIPE
    if show_traceback:
        traceback.print_exception(exc)
    say(_message(exc))
    usage = isinstance(exc, InvalidInputError | ConfigurationError)
    return EXIT_USAGE if usage else EXIT_FAILED


def _message(exc: BaseException) -> str:
    if isinstance(exc, EmbellamaError):
        return str(exc)
    if isinstance(exc, OSError) and exc.strerror:
        name = f"{os.fsdecode(exc.filename)}: " if isinstance(exc.filename, str | bytes) else ""
        return f"{name}{exc.strerror}"
    summary = traceback.format_exception_only(exc)[-1].strip()
    return f"unexpected {summary} (--verbose shows where)"


def say(message: str) -> None:
    """Write a message on standard error, as one line that begins with the program's name."""
    if sys.stderr is None:
        return
    try:
        typer.echo(f"embellama: {' '.join(message.split())}", err=True)
    except BrokenPipeError:
        _silence(sys.stderr)


def finish_streams(status: int) -> int:
    """Flush the standard streams, so that the interpreter finds nothing to complain about.

    Returns:
        The status, or that of a write that failed only now.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
        return status or EXIT_BROKEN_PIPE
    except OSError as exc:
        _silence(sys.stdout)
        if status == 0:
            say(f"cannot write to standard output: {exc.strerror or exc}")
            return EXIT_FAILED
    return status


def _silence(stream: Any) -> None:
    """Let a stream that nobody reads any more, or that is full, end in nothing."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)

"""Where a command's texts come from, and what to call them when one cannot be used."""

from __future__ import annotations

import codecs
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import typer

from embellama.cli.settings import is_terminal
from embellama.errors import EmptyInputError, InputTooLongError, InvalidInputError

_BLOCK = 512
"""Lines that are looked at together: as many as an engine embeds together, so nothing waits."""

_REMEMBERED = 8 * _BLOCK
"""An engine reads two blocks ahead; older lines are of no use."""

NAMED = 10
"""Texts that a message spells out."""


class Texts:
    """Texts in order, to be iterated once, that know how the user counts them."""

    def __init__(
        self, numbered: Iterable[tuple[int, str]], *, kind: str, total: int | None
    ) -> None:
        self.total = total
        self._numbered = numbered
        self.kind = kind
        self._recent: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self._n_given = 0

    def __iter__(self) -> Iterator[str]:
        for number, text in self._numbered:
            self._recent.append((number, text))
            self._n_given += 1
            yield text

    def all(self) -> list[str]:
        """Read every text to the end, and remember them all."""
        self._recent = deque(self._recent)
        return list(self)

    def numbered(self, index: int) -> tuple[int, str]:
        """Return the user's number, from 1, and the text at an index, one of the latest."""
        return self._recent[index - (self._n_given - len(self._recent))]

    def named(self, indices: Sequence[int]) -> str:
        """Name some of the latest texts as the user counts them."""
        return f"{self.kind} {listed([self.numbered(index)[0] for index in indices])}"

    def explained(self, exc: InvalidInputError, *, first: int = 0) -> InvalidInputError:
        """Say an engine's complaint with the user's numbers instead of indices.

        Args:
            exc: The complaint.
            first: The index of the first text that the engine was given then.
        """
        if not exc.indices:
            return exc
        numbers = [self.numbered(first + index)[0] for index in exc.indices]
        if isinstance(exc, InputTooLongError):
            lengths = zip(numbers, exc.n_tokens, strict=True)
            named = listed([f"{number} ({n} tokens)" for number, n in lengths])
            why = (
                f"over the limit of {exc.limit} tokens, special tokens included; split it, or say "
                "with --overflow what to do"
            )
        elif isinstance(exc, EmptyInputError):
            named = listed(numbers)
            why = "nothing to embed: blank, or only characters that the model drops"
        else:
            named = listed(numbers)
            why = "blank, over the model's limit, or not valid Unicode"
        return InvalidInputError(f"{self.kind} {named}: {why}", indices=exc.indices)


def listed(items: Sequence[object], total: int | None = None) -> str:
    """Write the first of some items, and how many more there are, of which some may be lost."""
    n_more = (len(items) if total is None else total) - NAMED
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(map(str, items[:NAMED])) + more


@contextmanager
def open_texts(
    arguments: Sequence[str] | None, file: Path | None, *, skip_blank: bool
) -> Iterator[Texts]:
    """Give the texts of the command line, of a file, or of standard input.

    A regular file is looked through before, so that a blank line at its end does not show only
    when all the others are embedded.

    Raises:
        InvalidInputError: A text is blank or not UTF-8, or the file cannot be read.
    """
    if arguments and file is not None:
        raise typer.BadParameter("give TEXT or --file, not both", param_hint="--file")
    if arguments:
        yield _from_arguments(arguments, skip_blank=skip_blank)
    elif file is None or str(file) == "-":
        lines = numbered_lines(_standard_input(), skip_blank=skip_blank)
        yield Texts(lines, kind="line", total=None)
    else:
        with _opened(file) as stream:
            total = count_lines(stream, skip_blank=skip_blank) if stream.seekable() else None
            lines = numbered_lines(stream, skip_blank=skip_blank)
            yield Texts(lines, kind="line", total=total)


def _from_arguments(arguments: Sequence[str], *, skip_blank: bool) -> Texts:
    numbered = list(enumerate(arguments, start=1))
    for number, text in numbered:
        if not text.isascii() and _has_surrogate(text):
            raise InvalidInputError(f"TEXT {number} is not UTF-8; convert it first")
    blank = [number for number, text in numbered if not text.strip()]
    if blank and not skip_blank:
        raise _blank_error("TEXT", blank)
    kept = [(number, text) for number, text in numbered if number not in set(blank)]
    return Texts(kept, kind="TEXT", total=len(kept))


def _has_surrogate(text: str) -> bool:
    """Tell whether the operating system gave bytes that are no text; Python hides them so."""
    return any("\ud800" <= character <= "\udfff" for character in text)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        stream = file.open("rb")
    except OSError as exc:
        raise InvalidInputError(f"cannot read {str(file)!r}: {exc.strerror or exc}") from exc
    with stream:
        yield stream


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise InvalidInputError("no TEXT, no --file, and standard input is closed")
    if is_terminal(sys.stdin):
        typer.echo("reading texts from the terminal, one a line; Ctrl-D ends", err=True)
    return sys.stdin.buffer


def count_lines(stream: BinaryIO, *, skip_blank: bool) -> int:
    """Check all lines of a file and count those to embed; the file is then at its start again.

    Raises:
        InvalidInputError: Naming every blank line, or the first that is not UTF-8.
    """
    n_texts, blank = 0, []
    for number, raw in enumerate(stream, start=1):
        if _decoded(raw, number).strip():
            n_texts += 1
        else:
            blank.append(number)
    if blank and not skip_blank:
        raise _blank_error("line", blank)
    stream.seek(0)
    return n_texts


def numbered_lines(stream: Iterable[bytes], *, skip_blank: bool) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers from 1, without line ends, reading a block ahead.

    Raises:
        InvalidInputError: Naming the blank lines of a block, or the first that is not UTF-8.
    """
    source, first = iter(stream), 1
    while block := list(islice(source, _BLOCK)):
        texts = [(number, _decoded(raw, number)) for number, raw in enumerate(block, start=first)]
        blank = [number for number, text in texts if not text.strip()]
        if blank and not skip_blank:
            raise _blank_error("line", blank)
        yield from ((number, text) for number, text in texts if text.strip())
        first += len(block)
        if len(block) < _BLOCK:  # a terminal that has ended would be read again
            return


def _decoded(raw: bytes, number: int) -> str:
    data = raw.rstrip(b"\r\n")
    if number == 1:
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(
            f"line {number} is not UTF-8 (byte 0x{data[exc.start]:02x} at {exc.start + 1}); "
            "convert it first, for example with iconv"
        ) from exc


def _blank_error(kind: str, numbers: Sequence[int]) -> EmptyInputError:
    return EmptyInputError(
        f"{kind} {listed(numbers)}: blank, nothing to embed; --skip-blank leaves such lines out"
    )

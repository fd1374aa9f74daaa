"""How vectors are written: json, jsonl, csv and npy, to standard output or atomically to a file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from embellama.cli.settings import is_terminal
from embellama.errors import InvalidInputError
from embellama.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

Vectors = Iterable["NDArray[Any]"]


class VectorFormat(StrEnum):
    """How vectors are written."""

    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    NPY = "npy"


def check_destination(path: Path | None, kind: VectorFormat) -> None:
    """Refuse what would fail, or make a mess, only after all the work.

    Raises:
        InvalidInputError: Binary data would go to a terminal, or the file cannot be written.
    """
    if path is None or str(path) == "-":
        if sys.stdout is None:
            raise InvalidInputError("standard output is closed; name a file with -o")
        if kind is VectorFormat.NPY and is_terminal(sys.stdout):
            raise InvalidInputError("npy is binary and not for a terminal; name a file with -o")
    elif path.is_dir():
        raise InvalidInputError(f"cannot write {str(path)!r}: it is a directory; name a file in it")
    elif not path.parent.is_dir():
        raise InvalidInputError(f"cannot write {str(path)!r}: {str(path.parent)!r} does not exist")


@contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Give what to write to: standard output, or a file that appears when the block ends well.

    Raises:
        OSError: It cannot be written; the error has the name that the user knows.
    """
    if path is None or str(path) == "-":
        with _called("standard output"):
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    target = path.resolve()  # a link stays a link
    with _called(str(path)):
        if target.exists() and not target.is_file():  # a device or a pipe is not to be replaced
            with target.open("wb") as out:
                yield out
        else:
            with _replacing(target) as out:
                yield out


@contextmanager
def _called(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OSError(exc.errno, f"cannot be written: {exc.strerror or exc}", name) from exc


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    with replacing(target) as partial:
        with partial.open("wb") as out:
            yield out
        if target.exists():
            shutil.copymode(target, partial)


def write_vectors(
    out: BinaryIO, vectors: Vectors, kind: VectorFormat, *, none_yet: NDArray[Any], flat: bool
) -> None:
    """Write the vectors as they come.

    Args:
        out: Where to.
        vectors: (n_columns,) each, all of one type.
        kind: The format.
        none_yet: (0, n_columns) of that type, for a file that has none.
        flat: Write the only vector in json as one array, not as a list of one.
    """
    if kind is VectorFormat.NPY:
        _write_npy(out, vectors, none_yet)
    elif kind is VectorFormat.JSON and not flat:
        _write_json(out, vectors)
    else:
        open_, close = ("", "") if kind is VectorFormat.CSV else ("[", "]")
        for vector in vectors:
            out.write(f"{open_}{_numbers(vector)}{close}\n".encode())


def _numbers(vector: NDArray[Any]) -> str:
    """Write each component in the fewest digits that give back the same number of its type."""
    return ",".join(map(str, vector))


def _write_json(out: BinaryIO, vectors: Vectors) -> None:
    before = "[\n"
    for vector in vectors:
        out.write(f"{before}[{_numbers(vector)}]".encode())
        before = ",\n"
    out.write(b"[]\n" if before == "[\n" else b"\n]\n")


def _write_npy(out: BinaryIO, vectors: Vectors, none_yet: NDArray[Any]) -> None:
    """Write an array of as many rows as there turn out to be, without holding them in memory.

    The header says how many, so the rows wait in a temporary file.
    """
    from numpy.lib.format import write_array_header_1_0  # noqa: PLC0415

    in_file = none_yet.dtype.newbyteorder("<")
    with tempfile.TemporaryFile() as rows:
        n_texts = 0
        for vector in vectors:
            rows.write(vector.astype(in_file, copy=False).tobytes())
            n_texts += 1
        shape = (n_texts, none_yet.shape[1])
        header = {"descr": in_file.str, "fortran_order": False, "shape": shape}
        write_array_header_1_0(out, header)
        rows.seek(0)
        shutil.copyfileobj(rows, out, 1 << 20)

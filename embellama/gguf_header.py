"""The header of a GGUF file: key-value pairs and tensor descriptions, checked against its size.

This is a parser of our own and not ``gguf.GGUFReader``, for two reasons. The reader makes Python
objects of every token (0.7 s for MiniLM's 30,522, seconds for a multilingual vocabulary; here they
are stepped over in 20 ms), and it trusts the counts it reads, so that one flipped bit can cost
gigabytes. Sizes of tensor types come from the ``gguf`` package.

Nothing passes here that makes llama.cpp abort the process while it reads the header: a repeated
token, for example, which is an assertion there.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and gguf.cpp of llama.cpp.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from gguf.constants import GGML_QUANT_SIZES

from embellama.errors import GGUFFormatError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4
MAX_TENSOR_NAME = 63
"""Bytes of a tensor's name. Source: ``GGML_MAX_NAME`` in ggml.h, less the final NUL."""

MAX_KEY = 65_535
"""Bytes of a key. Source: the GGUF specification."""

MAX_STRINGS = 1 << 22
"""Most strings in an array; the largest vocabularies have some 300,000, merges twice that."""

MAX_ITEMS = 1024
"""Number arrays up to this length are kept (one number per layer); longer ones are skipped."""

TOKENS_KEY = "tokenizer.ggml.tokens"

_BYTE_TOKENS = tuple(
    (b"<0x%02X>" % byte, bytes([byte]))
    for byte in range(256)
    if byte not in (0xC0, 0xC1, *range(0xF5, 256))
)
"""What stands for each byte that UTF-8 uses. Source: ``byte_to_token`` in llama-vocab.cpp."""

_STRING, _ARRAY = 8, 9
_SCALARS = {
    number: struct.Struct("<" + code)
    for number, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_U32, _U64 = _SCALARS[4], _SCALARS[10]

_TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    int(kind): (kind.name, block, size) for kind, (block, size) in GGML_QUANT_SIZES.items()
}
# Newer than the oldest gguf package we accept. Source: block_q2_0 in ggml-common.h.
_TENSOR_TYPES.setdefault(42, ("Q2_0", 64, 18))


@dataclass(frozen=True, slots=True)
class Array:
    """An array value.

    Attributes:
        length: How many elements it has.
        items: The elements, for number arrays of at most ``MAX_ITEMS``; empty otherwise.
        start: First byte of the elements, for number arrays, counted from the file's beginning.
        has_byte_tokens: Whether the vocabulary can write any byte of a text; False for all else.
    """

    length: int
    items: tuple[int | float | bool, ...] = ()
    start: int = 0
    has_byte_tokens: bool = False


Value: TypeAlias = int | float | bool | str | Array

_T = TypeVar("_T", int, float, bool, str)


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor is, and what it is.

    Attributes:
        name: Its name, as ``blk.0.attn_q.weight``.
        shape: Elements per dimension in ggml's order: the row's length comes first.
        type_name: Its type, as ``"F16"`` or ``"Q8_0"``.
        offset: First byte, counted from the beginning of the file.
        size_bytes: Bytes of its data, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything a file says before its weights.

    Attributes:
        path: The file.
        size_bytes: Bytes of the file.
        values: The key-value pairs; long arrays only by their length.
        tensors: The tensors in file order.
    """

    path: Path
    size_bytes: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]


def read_header(path: Path) -> Header:
    """Read and check the header of one file.

    Raises:
        OSError: It cannot be opened.
        GGUFFormatError: Its bytes are not those of a sound little-endian GGUF of version 2 or 3.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size < len(MAGIC) + 20:
            raise malformed(path, f"{size} bytes are too few for a header")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(path, data).header()


def value_of(header: Header, key: str, kind: type[_T]) -> _T | None:
    """Read a value; None if it is not there.

    Raises:
        GGUFFormatError: It is of another type.
    """
    value = header.values.get(key)
    if value is None or type(value) is kind:
        return value
    raise malformed(header.path, f"{key} is {value!r}, and should be of type {kind.__name__}")


def printable(name: str) -> str:
    """Write a file's name so that any terminal and log takes it, though it be no UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def malformed(path: Path, what: str) -> GGUFFormatError:
    """Make the error that says what is wrong with a file."""
    return GGUFFormatError(
        f"{str(path)!r} is not a sound GGUF: {what}; download or convert it again"
    )


class _Reader:
    """A position in a mapped file. Every step checks that it stays within."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._end = len(data)
        self._position = 0

    def header(self) -> Header:
        self._check_preamble()
        n_tensors, n_values = self._scalar(_U64), self._scalar(_U64)
        # The smallest pair has 14 bytes, the smallest tensor description 24.
        self._check_count("tensors", n_tensors, 24)
        self._check_count("key-value pairs", n_values, 14)
        values = self._values(n_values)
        described = [self._tensor() for _ in range(n_tensors)]
        return Header(self._path, self._end, values, self._placed(described, values))

    def _check_preamble(self) -> None:
        magic = self._data[:4]
        if magic != MAGIC:
            raise malformed(self._path, f"it begins with {magic!r}, not {MAGIC!r}")
        self._position = 4
        version = self._scalar(_U32)
        if version and version & 0xFFFF == 0:
            raise malformed(self._path, "it is big-endian, and only little-endian files are read")
        if version not in VERSIONS:
            raise malformed(self._path, f"its version is {version}, and 2 and 3 are read")

    def _check_count(self, what: str, n: int, size: int) -> None:
        if n * size > self._end - self._position:
            left = self._end - self._position
            raise malformed(self._path, f"it claims {n} {what}, and {left} bytes are left for them")

    def _advance(self, size: int) -> int:
        """Step over bytes; return where they began."""
        start = self._position
        if size > self._end - start:
            raise malformed(
                self._path,
                f"its header is cut off: {size} bytes are expected at {start} of {self._end}",
            )
        self._position = start + size
        return start

    def _scalar(self, layout: struct.Struct) -> int:
        (value,) = layout.unpack_from(self._data, self._advance(layout.size))
        return value  # type: ignore[no-any-return]

    def _bytes(self, limit: int, what: str) -> bytes:
        length = self._scalar(_U64)
        if length > limit:
            raise malformed(self._path, f"{what} of {length} bytes is over {limit}")
        start = self._advance(length)
        return self._data[start : start + length]

    def _name(self, limit: int, what: str) -> str:
        raw = self._bytes(limit, what)
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            raise malformed(self._path, f"{what} {raw[:40]!r} is not UTF-8") from exc

    def _values(self, n: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for _ in range(n):
            key = self._name(MAX_KEY, "a key")
            if not key or key in values:
                raise malformed(self._path, f"the key {key!r} is empty or there twice")
            values[key] = self._value(key)
        return values

    def _value(self, key: str) -> Value:
        kind = self._scalar(_U32)
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind == _STRING:
            # What llama.cpp keeps as bytes may be any bytes: a licence, a chat template.
            return self._bytes(self._end, f"the text of {key!r}").decode(errors="replace")
        if kind != _ARRAY:
            raise malformed(self._path, f"the value of {key!r} has the unknown type {kind}")
        kind, length = self._scalar(_U32), self._scalar(_U64)
        if kind == _STRING:
            return self._strings(key, length)
        if kind not in _SCALARS:
            raise malformed(self._path, f"the array {key!r} has elements of unknown type {kind}")
        return self._numbers(key, _SCALARS[kind], length)

    def _numbers(self, key: str, layout: struct.Struct, length: int) -> Array:
        self._check_count(f"elements of {key!r}", length, layout.size)
        start = self._advance(length * layout.size)
        if length > MAX_ITEMS:
            return Array(length, start=start)
        raw = self._data[start : self._position]
        return Array(length, tuple(item for (item,) in layout.iter_unpack(raw)), start)

    def _strings(self, key: str, length: int) -> Array:
        self._check_count(f"elements of {key!r}", length, _U64.size)
        if length > MAX_STRINGS:
            raise malformed(self._path, f"{key!r} has {length} elements, over {MAX_STRINGS}")
        data, end, position = self._data, self._end, self._position
        words: set[bytes] | None = set() if key == TOKENS_KEY else None
        unpack_from = _U64.unpack_from
        for index in range(length):
            stop = position + 8
            if stop <= end:
                stop += unpack_from(data, position)[0]
            if stop > end:
                raise malformed(self._path, f"it ends within element {index} of {key!r}")
            if words is not None:
                words.add(data[position + 8 : stop])
            position = stop
        start, self._position = self._position, position
        if words is None:
            return Array(length)
        if b"" in words or b"\0" in b"".join(words):
            words = self._words_as_read(start, length)
        if len(words) != length:
            raise malformed(self._path, f"{length} tokens, but only {len(words)} different ones")
        complete = all(name in words or byte in words for name, byte in _BYTE_TOKENS)
        return Array(length, has_byte_tokens=complete)

    def _words_as_read(self, position: int, length: int) -> set[bytes]:
        """Collect strings as llama.cpp reads tokens: up to a NUL, by number if nothing is left."""
        words = set()
        for index in range(length):
            stop = position + 8 + _U64.unpack_from(self._data, position)[0]
            word = self._data[position + 8 : stop].partition(b"\0")[0]
            words.add(word or b"[EMPTY_%d]" % index)
            position = stop
        return words

    def _tensor(self) -> Tensor:
        name = self._name(MAX_TENSOR_NAME, "a tensor's name")
        n_dims = self._scalar(_U32)
        if n_dims > MAX_DIMS:
            raise malformed(self._path, f"tensor {name!r} has {n_dims} dimensions, over {MAX_DIMS}")
        shape = tuple(self._scalar(_U64) for _ in range(n_dims))
        kind, offset = self._scalar(_U32), self._scalar(_U64)
        if kind not in _TENSOR_TYPES:
            raise malformed(self._path, f"tensor {name!r} has the unknown type {kind}")
        type_name, block, block_bytes = _TENSOR_TYPES[kind]
        n_elements = 1
        for dimension in shape:
            n_elements *= dimension
        if shape and shape[0] % block:
            raise malformed(
                self._path, f"rows of {name!r} are {shape[0]} long, not a multiple of {block}"
            )
        return Tensor(name, shape, type_name, offset, n_elements // block * block_bytes)

    def _placed(self, tensors: list[Tensor], values: Mapping[str, Value]) -> tuple[Tensor, ...]:
        """Check that the data follow each other without gaps and are all there."""
        alignment = values.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
            raise malformed(self._path, f"general.alignment is {alignment!r}, not a power of two")
        start = _padded(self._position, alignment)
        expected = 0
        placed: dict[str, Tensor] = {}
        for tensor in tensors:
            if tensor.name in placed or tensor.offset != expected:
                raise malformed(
                    self._path,
                    f"tensor {tensor.name!r} is there twice, or begins at {tensor.offset} and not "
                    f"at {expected}",
                )
            if start + expected + tensor.size_bytes > self._end:
                raise malformed(
                    self._path,
                    f"it is cut off: tensor {tensor.name!r} ends at byte "
                    f"{start + expected + tensor.size_bytes}, the file at {self._end}",
                )
            placed[tensor.name] = Tensor(
                tensor.name, tensor.shape, tensor.type_name, start + expected, tensor.size_bytes
            )
            expected = _padded(expected + tensor.size_bytes, alignment)
        return tuple(placed.values())


def _padded(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment

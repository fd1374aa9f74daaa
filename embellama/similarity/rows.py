"""Rows of vectors as float32, whatever they are stored as, read a part at a time."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity.arrays import AnyArray, as_floats, check_axes, check_widths, described
from embellama.similarity.pages import let_go
from embellama.types import FloatArray

Selection: TypeAlias = slice | NDArray[np.int64]

CodePrecision: TypeAlias = Literal["int8", "uint8", "binary", "ubinary"]
"""Codes as sentence-transformers' ``quantize_embeddings`` names and lays them out."""

SIGN_BIT = np.uint8(0x80)
"""``binary`` is ``ubinary`` less 128 as int8: the same bytes with the first bit turned over."""

_DTYPES = {"int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


class Rows(Protocol):
    """Vectors that are read by slice or by index.

    Attributes:
        name: What the caller calls them.
    """

    name: str

    def __len__(self) -> int:
        """How many there are."""
        ...

    def take(self, selection: Selection) -> FloatArray:
        """Return float32 (n, n_embd) of the rows selected; may be a view."""
        ...


class FloatRows:
    """Rows of float16, float32 or float64."""

    def __init__(self, name: str, array: AnyArray) -> None:
        (self._array,) = as_floats((name, array))
        check_axes(name, self._array, (2,))
        self.name = name

    def __len__(self) -> int:
        return len(self._array)

    def take(self, selection: Selection) -> FloatArray:
        """Return the rows selected; no copy of a slice of contiguous float32."""
        with np.errstate(over="ignore"):  # beyond float32: infinite, and refused where it is used
            return np.ascontiguousarray(self._array[selection], dtype=np.float32)

    def let_go(self, part: slice) -> None:
        """Give back the pages of a mapped file."""
        let_go(self._array[part])


class IntegerRows:
    """Rows of int8 or uint8 codes, as the values that the codes stand for.

    With ranges a code is the middle of its bucket; without, the number itself.
    Source: ``quantize_embeddings`` of sentence-transformers: code =
    floor((value - minimum) / step), step = (maximum - minimum) / 255, and for int8 less 128.
    """

    def __init__(
        self, name: str, codes: AnyArray, precision: CodePrecision, ranges: AnyArray | None
    ) -> None:
        self.name = name
        self._codes = codes
        self._scale: FloatArray | None = None
        if ranges is not None:
            lower, upper = _as_ranges(ranges, name, codes)
            step = (upper - lower) / 255
            lowest_code = -128 if precision == "int8" else 0
            self._scale = step.astype(np.float32)
            self._shift = (lower + (0.5 - lowest_code) * step).astype(np.float32)

    def __len__(self) -> int:
        return len(self._codes)

    def take(self, selection: Selection) -> FloatArray:
        """Return what the selected codes stand for."""
        values = self._codes[selection].astype(np.float32)
        if self._scale is not None:
            values *= self._scale
            values += self._shift
        return values

    def let_go(self, part: slice) -> None:
        """Give back the pages of a mapped file."""
        let_go(self._codes[part])


class BinaryRows:
    """Rows of packed bits, as vectors of +1 and -1."""

    def __init__(self, name: str, codes: AnyArray, precision: CodePrecision, n_embd: int) -> None:
        self.name = name
        self._codes = codes
        self._flip = SIGN_BIT if precision == "binary" else np.uint8(0)
        self._n_embd = n_embd

    def __len__(self) -> int:
        return len(self._codes)

    def take(self, selection: Selection) -> FloatArray:
        """Return the signs that the selected codes stand for."""
        packed = np.ascontiguousarray(self._codes[selection]).view(np.uint8) ^ self._flip
        signs = np.unpackbits(packed, axis=-1, count=self._n_embd).astype(np.float32)
        signs *= 2.0
        signs -= 1.0
        return signs


def code_rows(
    codes: AnyArray, precision: CodePrecision, n_embd: int, ranges: AnyArray | None
) -> IntegerRows | BinaryRows:
    """Check codes against the length of the float vectors they will meet.

    Args:
        codes: int8 or uint8 (n, n_embd), or packed bits (n, n_embd / 8, rounded up).
        precision: What the codes are.
        n_embd: Components of the queries.
        ranges: float (2, n_embd) minimum and maximum of each component, for int8 and uint8.

    Raises:
        InvalidInputError: A width that does not fit, or ranges where there can be none.
        InvalidInputTypeError: Codes of another dtype than the precision's.
    """
    if precision not in _DTYPES:
        raise InvalidInputError(f"precision is {precision!r}; choose one of {', '.join(_DTYPES)}")
    codes = np.asarray(codes)
    if codes.dtype != _DTYPES[precision]:
        wanted = np.dtype(_DTYPES[precision])
        raise InvalidInputTypeError(
            f"{described('codes', codes)}, {precision} codes are {wanted}; pass what was quantized "
            "with this precision"
        )
    check_axes("codes", codes, (2,))
    binary = precision.endswith("binary")
    width = -(-n_embd // 8) if binary else n_embd
    if codes.shape[1] != width:
        raise InvalidInputError(
            f"{described('codes', codes)}, queries have {n_embd} components: {precision} codes of "
            f"such vectors are {width} wide; use the model and dimensions the codes were made with"
        )
    if not binary:
        return IntegerRows("codes", codes, precision, ranges)
    if ranges is not None:
        raise InvalidInputError(
            f"{described('ranges', np.asarray(ranges))}, but {precision} codes have none; leave "
            "ranges out"
        )
    return BinaryRows("codes", codes, precision, n_embd)


def _as_ranges(ranges: Any, name: str, codes: AnyArray) -> AnyArray:
    (checked,) = as_floats(("ranges", ranges))
    check_axes("ranges", checked, (2,))
    check_widths("ranges", checked, name, codes)
    checked = checked.astype(np.float64)
    if len(checked) != 2 or not np.isfinite(checked).all() or (checked[0] > checked[1]).any():
        raise InvalidInputError(
            f"{described('ranges', checked)}; pass two rows, the minimum and the maximum of each "
            "component, all of them finite and no minimum over its maximum"
        )
    return checked

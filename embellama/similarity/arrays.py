"""Arrays as callers bring them: checked side against side, and cut into blocks."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.types import FloatArray

AnyArray: TypeAlias = NDArray[Any]
Float64Array: TypeAlias = NDArray[np.float64]

MAX_NORM = 1e18
"""Longest vector: the product of two still fits into float32, whose largest value is 3.4e38."""

TILE = 1024
"""Rows a side for work in float64: at 384 components 3 MB each, which the CPU's cache holds."""

_FLOATS = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def described(name: str, array: AnyArray) -> str:
    """Name an array with its dtype and shape, for messages."""
    return f"{name} is {array.dtype} {array.shape}"


def check_widths(a_name: str, a: AnyArray, b_name: str, b: AnyArray) -> None:
    """Refuse two sides whose rows have different lengths, or none at all.

    Raises:
        InvalidInputError: The last axes differ or are empty.
    """
    if a.shape[-1] != b.shape[-1] or a.shape[-1] == 0:
        raise InvalidInputError(
            f"{described(a_name, a)}, {described(b_name, b)}: the last axes differ or are empty; "
            "compare vectors of one model with the same dimensions"
        )


def check_axes(name: str, array: AnyArray, allowed: tuple[int, ...]) -> None:
    """Refuse an array with another number of axes.

    Raises:
        InvalidInputError: ``array.ndim`` is not among those allowed.
    """
    if array.ndim not in allowed:
        shapes = {1: "one vector (n_embd,)", 2: "rows (n, n_embd)"}
        wanted = " or ".join(shapes[ndim] for ndim in allowed)
        raise InvalidInputError(
            f"{described(name, array)} with {array.ndim} axes; pass {wanted}: vector[np.newaxis] "
            "makes one row of a vector, rows[0] takes one out"
        )


def as_floats(*sides: tuple[str, Any]) -> list[AnyArray]:
    """Take arrays of float16, float32 or float64 as they are; lists of floats become arrays.

    Raises:
        InvalidInputTypeError: A side holds integers, objects or anything else; all are named.
    """
    arrays = [_as_array(name, value) for name, value in sides]
    if any(array.dtype.newbyteorder("=") not in _FLOATS for array in arrays):
        seen = ", ".join(
            described(name, array) for (name, _), array in zip(sides, arrays, strict=True)
        )
        raise InvalidInputTypeError(
            f"{seen}: float16, float32 or float64 is needed; for int8, uint8, binary or ubinary "
            "codes use top_k_codes, hamming_matrix or hamming_top_k"
        )
    return arrays


def _as_array(name: str, value: Any) -> AnyArray:
    try:
        return np.asarray(value)
    except ValueError as exc:
        raise InvalidInputTypeError(f"{name} is no array ({exc}); pass rows of one length") from exc


def as_count(name: str, value: int) -> int:
    """Take a whole number from 1.

    Raises:
        InvalidInputTypeError: It is not a whole number.
        InvalidInputError: It is below 1.
    """
    try:
        count = operator.index(value)
    except TypeError as exc:
        raise InvalidInputTypeError(f"{name} is {value!r}; pass a whole number from 1") from exc
    if count < 1:
        raise InvalidInputError(f"{name} is {count}; pass a whole number from 1")
    return count


def blocks(n_rows: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` rows that cover ``n_rows`` in order."""
    for start in range(0, n_rows, size):
        yield slice(start, min(start + size, n_rows))


def float32_block(
    name: str, rows: AnyArray, at: int | AnyArray = 0
) -> tuple[FloatArray, FloatArray]:
    """Give rows as contiguous float32, with the squares of their Euclidean norms.

    Args:
        name: What the caller calls the whole array.
        rows: float (n, n_embd), part of that array; not copied where it is fit already.
        at: Index of the part's first row in the whole, or integers (n,), that of each row.

    Returns:
        float32 (n, n_embd) and float32 (n,).

    Raises:
        InvalidInputError: A row holds NaN or infinity, or is longer than ``MAX_NORM``.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        block = np.ascontiguousarray(rows, dtype=np.float32)
        squares = np.einsum("ij,ij->i", block, block)
        # NaN compares false, so one look at the sums finds all that cannot be used
        bad = np.flatnonzero(~(squares <= MAX_NORM**2))
    if len(bad):
        row = int(bad[0])
        numbers = [int(number) for number in (at + bad if isinstance(at, int) else at[bad])]
        finite = bool(np.isfinite(rows[row]).all())
        seen = f"a component of {np.abs(rows[row]).max():.3g}" if finite else "NaN or infinity"
        raise InvalidInputError(
            f"row {numbers[0]} of {name} holds {seen}; components have to be numbers, and rows no "
            f"longer than {MAX_NORM:g}: embed that text again, or drop the row",
            indices=numbers,
        )
    return block, squares


def float64_block(name: str, rows: AnyArray, at: int | AnyArray = 0) -> Float64Array:
    """Give rows as float64 after the checks of ``float32_block``, through float32.

    Every function reads its input as float32, so that all of them agree on what a vector is.

    Raises:
        InvalidInputError: As ``float32_block``.
    """
    return float32_block(name, rows, at)[0].astype(np.float64)

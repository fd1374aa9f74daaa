"""Vectors made smaller: fewer components, and fewer bits for each. Arrays in, arrays out.

The codes are those of ``quantize_embeddings`` in sentence-transformers 5.7.0, bit by bit. Its
versions up to 5.6.1 differ from both: a value outside the ranges wraps around to the other end,
int8 codes below 0 are rounded up, and in binary codes of a number of components that 8 does not
divide the bits of one vector run into the next.
"""

from __future__ import annotations

from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.pooling import normalize
from embellama.precision.calibration import Calibration
from embellama.types import FloatArray, Normalization, Precision

FloatRows: TypeAlias = NDArray[np.floating[Any]]
Codes: TypeAlias = NDArray[np.float32 | np.float16 | np.int8 | np.uint8]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_CODE_DTYPES: dict[Precision, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}

_SIGN_BIT = np.uint8(0x80)


def shorten(rows: FloatRows, dimensions: int, normalization: Normalization = "l2") -> FloatArray:
    """Keep the first components and scale what is left anew.

    The rows may be normalised already or not: the result is the same up to rounding.

    Args:
        rows: float32 (n, n_embd).
        dimensions: Components to keep, from 1 to n_embd. Only models trained for it (Matryoshka)
            keep their quality.
        normalization: As in ``pooling.normalize``; ``"none"`` only cuts.

    Returns:
        float32 (n, dimensions), C-contiguous, sharing no memory with the rows.
        Source: ``encode(truncate_dim=..., normalize_embeddings=True)`` of sentence-transformers
        5.7.0, which cuts first and then normalises; Kusupati et al. 2022, arXiv:2205.13147.

    Raises:
        InvalidInputError: The rows are not (n, n_embd) floats, or have too few components.
    """
    _check_rows(rows)
    n_embd = rows.shape[1]
    if isinstance(dimensions, bool) or not isinstance(dimensions, int | np.integer):
        raise InvalidInputTypeError(
            f"dimensions is {dimensions!r}, not a whole number; give one from 1 to {n_embd}"
        )
    if not 1 <= dimensions <= n_embd:
        raise InvalidInputError(
            f"dimensions is {dimensions}, but these vectors have {n_embd} components; give a "
            f"number from 1 to {n_embd}"
        )
    kept: FloatArray = np.array(rows[:, :dimensions], dtype=np.float32, order="C")
    return normalize(kept, normalization)


def quantize(
    rows: FloatRows, precision: Precision, calibration: Calibration | None = None
) -> Codes:
    """Give vectors in another precision.

    A value outside the calibrated ranges gets the first or the last code. The maximum itself may
    get the last but one, where float32 rounds so. A component that is constant in the calibration
    has the first code up to 1 above that constant.

    Args:
        rows: float32 (n, n_embd). The arithmetic is done in their own type.
        precision: What to give.
        calibration: The range of each component; for int8 and uint8, and ignored otherwise.

    Returns:
        C-contiguous, one row a vector:
        ``"float32"``: the rows as given where they are float32 already;
        ``"float16"``: (n, n_embd), rounded to nearest, 11 significant bits;
        ``"uint8"``: (n, n_embd), in which of 255 equal steps from minimum to maximum a value is;
        ``"int8"``: (n, n_embd), the same minus 128;
        ``"ubinary"``: uint8 (n, ceil(n_embd / 8)), a bit for each component, 1 where it is over
        0, the first in the highest bit, the last byte filled up with zeros;
        ``"binary"``: int8 of the same shape, the same minus 128.
        Source: ``quantize_embeddings`` of sentence-transformers 5.7.0 for all but float16.

    Raises:
        InvalidInputError: No such precision; rows of another shape, or with NaN or infinity, or
            too large for float16; a calibration that is missing or of another length.
    """
    _check_precision(precision)
    _check_rows(rows)
    _check_finite(rows)
    if precision == "float32":
        return np.ascontiguousarray(rows, dtype=np.float32)
    if precision == "float16":
        return _half(rows)
    if precision in ("int8", "uint8"):
        codes = _steps_above_minimum(rows, _checked(calibration, precision, rows.shape[1]))
        return codes if precision == "uint8" else _minus_128(codes)
    bits = np.ascontiguousarray(np.packbits(rows > 0, axis=1))
    return bits if precision == "ubinary" else _minus_128(bits)


def dequantize(
    codes: Codes,
    precision: Precision,
    calibration: Calibration | None = None,
    *,
    dimensions: int | None = None,
) -> FloatArray:
    """Give the float vectors nearest to what the codes can stand for. They are not normalised.

    Args:
        codes: What ``quantize`` returned.
        precision: The precision they are in.
        calibration: For int8 and uint8, the one they were made by.
        dimensions: For binary and ubinary, the components of the vectors, to leave the filling of
            the last byte out; by default all bits are taken. Of no meaning for the others.

    Returns:
        float32 (n, n_embd). int8 and uint8: the middle of the step, off by half a step at most
        for values within the ranges. binary and ubinary: 1 where a bit is set and -1 elsewhere.

    Raises:
        InvalidInputError: No such precision; codes of another type or shape; a calibration that
            is missing or of another length; more dimensions than there are bits.
    """
    _check_precision(precision)
    expected = np.dtype(_CODE_DTYPES[precision])
    if codes.ndim != 2 or codes.dtype != expected:
        raise InvalidInputError(
            f"{precision} codes are {expected} of shape (n, columns), not {codes.dtype} of "
            f"shape {codes.shape}; give what quantize returned, and its precision"
        )
    if precision in ("float32", "float16"):
        return np.ascontiguousarray(codes, dtype=np.float32)
    unsigned = codes.view(np.uint8)
    if expected == np.int8:
        unsigned = unsigned ^ _SIGN_BIT
    if precision in ("int8", "uint8"):
        return _middles(unsigned, _checked(calibration, precision, codes.shape[1]))
    n_bits = 8 * codes.shape[1]
    kept = n_bits if dimensions is None else dimensions
    if not n_bits - 8 < kept <= n_bits:
        raise InvalidInputError(
            f"{codes.shape[1]} bytes a row hold {max(n_bits - 7, 0)} to {n_bits} components, not "
            f"{kept}; give the number of components before quantize"
        )
    signs: FloatArray = np.unpackbits(unsigned, axis=1, count=kept).astype(np.float32) * 2 - 1
    return signs


def _half(rows: FloatRows) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # found below, with the row
        halves = rows.astype(np.float16, order="C")
    over = np.flatnonzero(np.isinf(halves).any(axis=1)).tolist()
    if over:
        raise InvalidInputError(
            f"float16 ends at {np.finfo(np.float16).max:.0f}, and {len(over)} of {len(rows)} "
            f"vectors, the first at {over[0]}, go up to {np.abs(rows).max():.6g}; normalise them, "
            "or use float32",
            indices=over,
        )
    return halves


def _steps_above_minimum(rows: FloatRows, calibration: Calibration) -> NDArray[np.uint8]:
    """Count whole steps; in this order of operations, which decides the last bit."""
    with np.errstate(over="ignore"):  # far outside the ranges is infinitely far: clamped
        scaled = rows - calibration.ranges[0]
        scaled /= calibration.steps
    np.floor(scaled, out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    codes: NDArray[np.uint8] = scaled.astype(np.uint8, order="C")
    return codes


def _middles(codes: NDArray[np.uint8], calibration: Calibration) -> FloatArray:
    minimum, maximum = calibration.ranges
    middles: FloatArray = codes.astype(np.float32) + np.float32(0.5)
    with np.errstate(over="ignore"):  # cut to the maximum next
        middles = middles * calibration.steps + minimum
    # the code 255 stands for the maximum alone, as a constant's 0 does for the constant
    np.minimum(middles, maximum, out=middles)
    return middles


def _minus_128(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    return (codes ^ _SIGN_BIT).view(np.int8)


def _check_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise InvalidInputError(
            f"there is no precision {precision!r}; use one of {', '.join(PRECISIONS)}"
        )


def _check_rows(rows: FloatRows) -> None:
    if not np.issubdtype(rows.dtype, np.floating):
        raise InvalidInputTypeError(
            f"the vectors are {rows.dtype}, not floats; codes go through dequantize first"
        )
    if rows.ndim != 2 or not rows.shape[1]:
        raise InvalidInputError(
            f"the vectors have the shape {rows.shape}, not (n, n_embd); for a single one give "
            "vector[np.newaxis]"
        )


def _check_finite(rows: FloatRows) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
    if bad:
        raise InvalidInputError(
            f"{len(bad)} of {len(rows)} vectors, the first at {bad[0]}, hold NaN or infinity, "
            "which no code stands for; leave them out",
            indices=bad,
        )


def _checked(calibration: Calibration | None, precision: Precision, n_embd: int) -> Calibration:
    if calibration is None:
        raise InvalidInputError(
            f"{precision} needs a calibration: ranges taken from the vectors at hand would give "
            "the same text another code in every call; make one with "
            "Calibration.from_vectors(rows) from a few hundred embeddings, save it, and give it "
            "each time"
        )
    if calibration.n_embd != n_embd:
        raise InvalidInputError(
            f"the calibration is for {calibration.n_embd} components and the vectors have "
            f"{n_embd}; make one with Calibration.from_vectors from vectors of that length"
        )
    return calibration

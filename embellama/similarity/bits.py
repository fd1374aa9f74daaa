"""Bits that differ between packed codes: ``binary`` (int8) and ``ubinary`` (uint8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity.arrays import (
    TILE,
    AnyArray,
    as_count,
    blocks,
    check_axes,
    check_widths,
    described,
)
from embellama.similarity.nearest import Nearest, TopK, candidates, collect
from embellama.similarity.pages import let_go
from embellama.types import IntArray

BLOCK_ROWS = 16384

_WORD_BYTES = 8
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1).sum(
    axis=1, dtype=np.uint8
)


def hamming(a: AnyArray, b: AnyArray) -> int:
    """Count the bits in which two packed codes differ.

    Args:
        a: uint8 or int8 (n_bytes,).
        b: The same dtype and shape.

    Raises:
        InvalidInputError: Shapes that do not fit.
        InvalidInputTypeError: Other dtypes, or one side int8 and the other uint8.
    """
    left, right = _as_codes("a", a, "b", b)
    check_axes("a", left, (1,))
    check_axes("b", right, (1,))
    return int(_distances(_as_words(left[np.newaxis])[0], _as_words(right[np.newaxis]))[0])


def hamming_matrix(a: AnyArray, b: AnyArray | None = None) -> IntArray:
    """Count the differing bits of every code with every other.

    Args:
        a: uint8 or int8 (n, n_bytes).
        b: The same dtype (m, n_bytes); None compares ``a`` with itself.

    Returns:
        int32 (n, m).

    Raises:
        InvalidInputError: Shapes that do not fit.
        InvalidInputTypeError: Other dtypes, or one side int8 and the other uint8.
    """
    left, right = _as_codes("a", a, "b", a if b is None else b)
    check_axes("a", left, (2,))
    check_axes("b", right, (2,))
    out = np.empty((len(left), len(right)), dtype=np.int32)
    for columns in blocks(len(right), BLOCK_ROWS):
        words = _as_words(right[columns])
        for rows in blocks(len(left), TILE):
            for row, into in zip(_as_words(left[rows]), out[rows, columns], strict=True):
                into[:] = _distances(row, words)
    return out


def hamming_top_k(queries: AnyArray, codes: AnyArray, k: int) -> TopK:
    """Find the k codes with the fewest differing bits for each query.

    Blocks of 16,384 codes are read at a time, so ``codes`` may be a ``numpy.memmap``.

    Args:
        queries: uint8 or int8 (n_queries, n_bytes), or (n_bytes,) for one.
        codes: The same dtype (n, n_bytes).
        k: How many of each; all of them, sorted, where there are no more than that.

    Returns:
        ``(indices, scores)``: int64 and float32 (n_queries, min(k, n)), or (min(k, n),) for one
        query; scores are bits, fewest first, and of equals the lower index comes first.

    Raises:
        InvalidInputError: Shapes that do not fit, ``k`` below 1.
        InvalidInputTypeError: Other dtypes, or one side int8 and the other uint8.
    """
    wanted, stored = _as_codes("queries", queries, "codes", codes)
    check_axes("queries", wanted, (1, 2))
    check_axes("codes", stored, (2,))
    k = min(as_count("k", k), len(stored))
    query_words = _as_words(np.atleast_2d(wanted))
    found = [Nearest(max(k, 1)) for _ in query_words]
    for part in blocks(len(stored), BLOCK_ROWS):
        words = _as_words(stored[part])
        for query, nearest in zip(query_words, found, strict=True):
            distances = _distances(query, words)
            chosen = candidates(distances, nearest.limit, k)
            if len(chosen):
                nearest.add(chosen + part.start, distances[chosen].astype(np.float32))
        let_go(stored[part])
    return collect(found, k, negate=False, one=wanted.ndim == 1)


def _as_codes(a_name: str, a: Any, b_name: str, b: Any) -> tuple[AnyArray, AnyArray]:
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.dtype not in (np.uint8, np.int8):
        raise InvalidInputTypeError(
            f"{described(a_name, a)}, {described(b_name, b)}: packed bits are needed, both uint8 "
            "(ubinary) or both int8 (binary); quantize both sides with the same precision"
        )
    if a.ndim == 0 or b.ndim == 0:
        raise InvalidInputError(f"{described(a_name, a)}, {described(b_name, b)}: pass codes")
    check_widths(a_name, a, b_name, b)
    return a, b


def _as_words(codes: AnyArray) -> NDArray[np.uint64]:
    """Read bytes eight at a time; zeros fill up the last word and differ from nothing."""
    n_rows, n_bytes = codes.shape
    n_words = -(-n_bytes // _WORD_BYTES)
    if n_words * _WORD_BYTES == n_bytes:
        return np.ascontiguousarray(codes).view(np.uint64)
    padded = np.zeros((n_rows, n_words * _WORD_BYTES), dtype=np.uint8)
    padded[:, :n_bytes] = codes.view(np.uint8)
    return padded.view(np.uint64)


def _distances(query: NDArray[np.uint64], words: NDArray[np.uint64]) -> IntArray:
    """Add up word by word: numpy is slow at sums over a short last axis."""
    distances = np.zeros(len(words), dtype=np.int32)
    for column, word in enumerate(query):
        distances += _count_bits(words[:, column] ^ word)
    return distances


def _count_bits(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(words)
    return _count_bits_by_table(words)


def _count_bits_by_table(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Do without ``bitwise_count``, which numpy 1.26 does not have."""
    bits = _BITS_OF_BYTE[words.view(np.uint8).reshape(-1, _WORD_BYTES)]
    counts: NDArray[np.uint8] = bits.sum(axis=1, dtype=np.uint8)
    return counts

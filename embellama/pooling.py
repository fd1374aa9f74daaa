"""Rows to vectors: which pooling a model gets, and what is done to rows outside llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embellama.errors import ConfigurationError
from embellama.types import FloatArray, IntArray, Normalization, PoolingType

ARCHITECTURE_POOLING: dict[str, PoolingType] = {
    "bert": "mean",
    "nomic-bert": "mean",
    "nomic-bert-moe": "mean",
    "jina-bert-v2": "mean",
    "t5encoder": "mean",
    "modern-bert": "mean",
    "gemma-embedding": "mean",
}
"""What most models of an architecture use, for files that do not say; all others: last."""


@dataclass(frozen=True, slots=True)
class PoolingDecision:
    """Which pooling a model gets and who said so.

    Attributes:
        pooling_type: The pooling.
        source: ``"explicit"``, ``"file"``, ``"catalogue"`` or ``"architecture"``.
        warnings: Disagreements and guesses the user should know of.
    """

    pooling_type: PoolingType
    source: str
    warnings: tuple[str, ...] = ()


def decide_pooling(
    *,
    explicit: PoolingType | None,
    file: PoolingType | None,
    catalogue: PoolingType | None,
    architecture: str,
) -> PoolingDecision:
    """Take the first that speaks: the caller, the file, the catalogue, the architecture's habit.

    A file that declares "none" keeps its token rows apart; for one vector a text it does not speak.
    """
    candidates = (("explicit", explicit), ("file", file if file != "none" else None))
    spoken = [(who, what) for who, what in (*candidates, ("catalogue", catalogue)) if what]
    if not spoken:
        guess = ARCHITECTURE_POOLING.get(architecture, "last")
        note = (
            f"neither the file nor the catalogue says how to pool; {guess!r} is the habit of "
            f"architecture {architecture!r}; set pooling_type if the model's card says otherwise"
        )
        return PoolingDecision(guess, "architecture", (note,))
    source, chosen = spoken[0]
    others = [f"the {who} says {what!r}" for who, what in spoken[1:] if what != chosen]
    warnings = (
        (f"pooling {chosen!r} ({source}) is used, but {'; '.join(others)}",) if others else ()
    )
    return PoolingDecision(chosen, source, warnings)


_NO_ZERO = 1e-300
"""Divides a row of zeros into zeros; the smallest norm of a float32 row is about 1e-49."""

_MAX_ABS = 32760.0
"""What the largest component becomes under ``"max_abs"``. Source: `common_embd_normalize` of
llama.cpp, which leaves room in the range of an int16."""

ROW_POOLINGS: frozenset[PoolingType] = frozenset({"max", "mean_sqrt_len"})
"""Poolings that llama.cpp does not have; they are made here of its token rows."""


def pool_token_rows(rows: FloatArray, offsets: IntArray, pooling_type: PoolingType) -> FloatArray:
    """Make one row of each sequence's token rows.

    Args:
        rows: float32 (n_tokens, n_embd), sequences laid end to end.
        offsets: int32 (n_sequences + 1,), where each begins; none is empty.
        pooling_type: ``"max"``: the largest of each component; ``"mean"``; ``"mean_sqrt_len"``:
            the sum over the square root of the number of tokens.
            Source: ``pooling_mode_*`` of sentence-transformers' Pooling.

    Returns:
        float32 (n_sequences, n_embd).

    Raises:
        ConfigurationError: A pooling that is not of this kind.
    """
    starts = offsets[:-1]
    if pooling_type == "max":
        most: FloatArray = np.maximum.reduceat(rows, starts, axis=0)
        return most
    lengths = np.diff(offsets).astype(np.float64)[:, np.newaxis]
    sums = np.add.reduceat(rows, starts, axis=0, dtype=np.float64)
    if pooling_type == "mean":
        return (sums / lengths).astype(np.float32)
    if pooling_type == "mean_sqrt_len":
        return (sums / np.sqrt(lengths)).astype(np.float32)
    raise ConfigurationError(
        f"pooling {pooling_type!r} is not made of token rows; those are 'max', 'mean' and "
        "'mean_sqrt_len'"
    )


def normalize(rows: FloatArray, normalization: Normalization = "l2") -> FloatArray:
    """Scale each row.

    Args:
        rows: float32 (n, n_embd).
        normalization: ``"l2"`` divides by the Euclidean norm; a number ``p`` by the p-norm
            (1: the sum of absolute values); ``"max_abs"`` makes the largest absolute value 32760;
            ``"none"`` returns the rows as given.

    Returns:
        float32 (n, n_embd). A row of zeros stays zeros.
        Source: ``--embd-normalize`` of llama.cpp (2, p, 0 and -1), which sums in double precision
        as here.
    """
    if normalization == "none":
        return rows
    norms = np.maximum(_norms(rows, normalization), _NO_ZERO)
    scaled: FloatArray = (rows / norms[:, np.newaxis]).astype(np.float32)
    return scaled


def _norms(rows: FloatArray, normalization: Normalization) -> NDArray[np.float64]:
    if normalization in ("l2", 2):
        squares: NDArray[np.float64] = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        return np.sqrt(squares)
    magnitudes = np.abs(rows).astype(np.float64)
    # scaled by the largest first, so that a high power neither overflows nor vanishes
    largest: NDArray[np.float64] = magnitudes.max(axis=1)
    if normalization == "max_abs":
        return largest / _MAX_ABS
    p = float(normalization)
    relative = magnitudes / np.where(largest == 0.0, 1.0, largest)[:, np.newaxis]
    norms: NDArray[np.float64] = largest * (relative**p).sum(axis=1) ** (1.0 / p)
    return norms


def merge_windows(
    rows: FloatArray, n_tokens: Sequence[int], normalization: Normalization
) -> FloatArray:
    """Make one row of the windows of a long text: their mean, weighted by their tokens.

    Args:
        rows: float32 (n_windows, n_embd), not normalised.
        n_tokens: Tokens of each window that are the text's own.
        normalization: Unless it is ``"none"``, windows are brought to length 1 before.

    Returns:
        float32 (n_embd,), not normalised.
    """
    weights = np.asarray(n_tokens, dtype=np.float64)
    scaled = normalize(rows, "none" if normalization == "none" else "l2")
    merged: FloatArray = ((weights / weights.sum()) @ scaled).astype(np.float32)
    return merged


def rows_with_bad_values(rows: FloatArray) -> list[int]:
    """Return the indices of rows that hold NaN or infinity."""
    finite = np.isfinite(rows)
    if finite.all():
        return []
    return [int(index) for index in np.flatnonzero(~finite.all(axis=1))]

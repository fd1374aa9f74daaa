"""Rows to vectors: which pooling a model gets, and how its output is scaled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embellama.types import FloatArray, Normalization, PoolingType

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


def normalize(rows: FloatArray, normalization: Normalization = "l2") -> FloatArray:
    """Scale each row to length 1.

    Args:
        rows: float32 (n, n_embd).
        normalization: ``"l2"`` divides by the Euclidean norm; ``"none"`` returns the rows as given.

    Returns:
        float32 (n, n_embd). A row of zeros stays zeros.
        Source: ``--embd-normalize 2`` of llama.cpp, which sums in double precision as here.
    """
    if normalization == "none":
        return rows
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    norms[norms == 0.0] = 1.0
    scaled: FloatArray = (rows / norms[:, np.newaxis]).astype(np.float32)
    return scaled


def rows_with_bad_values(rows: FloatArray) -> list[int]:
    """Return the indices of rows that hold NaN or infinity."""
    return [int(index) for index in np.flatnonzero(~np.isfinite(rows).all(axis=1))]

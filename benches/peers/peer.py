"""What a peer has to offer to take part. It runs in its own environment: numpy is all it shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_BY_ONE = "single"
"""The work whose texts are embedded one after the other, as an application does with a query."""

BATCH = 32
"""Texts of a padded batch; the default of sentence-transformers. Sorted by length, they pad
little."""


class Peer:
    """One way to embed texts, ready to.

    Attributes:
        how: How its batches are made, for the table's notes.
        versions: Versions of what computes.
    """

    how: str = ""
    versions: dict[str, str]

    def embed(self, texts: Sequence[str]) -> Any:
        """Embed texts, and return what this way returns by itself: this is what is timed."""
        raise NotImplementedError

    def embed_one(self, text: str) -> Any:
        """Embed one text, the way that one alone is embedded."""
        return self.embed([text])

    def rows(self, native: Any) -> NDArray[np.float32]:
        """Turn what `embed` returned into float32 (n_texts, n_embd), rows of length 1."""
        return normalized(np.asarray(native, dtype=np.float32))

    def count_tokens(self, texts: Sequence[str]) -> int | None:
        """Count tokens, special ones included; None where another is asked."""
        return None

    def profile(self, texts: Sequence[str]) -> dict[str, float] | None:
        """Say which part of the time went where; None where it cannot be told."""
        return None

    def close(self) -> None:
        """End what would outlive the process."""


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows to length 1."""
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def versions_of(*projects: str) -> dict[str, str]:
    """Look up installed versions."""
    return {project: version(project) for project in projects}


def in_sorted_batches(
    lengths: Sequence[int], embed: Callable[[list[int]], NDArray[np.float32]], n_embd: int
) -> NDArray[np.float32]:
    """Embed texts of about the same length together, and put the rows back in order.

    Args:
        lengths: Tokens of each text.
        embed: Takes positions of texts, returns their rows.
        n_embd: Components of a row.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    rows = np.empty((len(lengths), n_embd), dtype=np.float32)
    for at in range(0, len(order), BATCH):
        batch = order[at : at + BATCH]
        rows[batch] = embed(batch)
    return rows

"""Which sequences go into one call of the backend: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_TOKENS = 64
"""Tokens below which a micro-batch is not made smaller to give another context something to do.

Each pass reads all weights, and that pays for so many tokens at least.
"""


def plan_micro_batches(
    lengths: Sequence[int], *, max_batch_tokens: int, max_batch_requests: int
) -> list[list[int]]:
    """Pack sequences into micro-batches of similar length.

    Longest first, so that the memory needed shows at once and what is left at the end is small.
    Sequences of one length keep their order. A sequence over the token budget goes alone.

    Args:
        lengths: Tokens of each sequence.
        max_batch_tokens: Most tokens of a micro-batch of more than one sequence.
        max_batch_requests: Most sequences of a micro-batch.

    Returns:
        Lists of indices into ``lengths``; every index is in one of them.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        length = lengths[index]
        if not batches or length > room or len(batches[-1]) >= max_batch_requests:
            batches.append([])
            room = max_batch_tokens
        batches[-1].append(index)
        room -= length
    return batches


def tokens_for_all(n_tokens: int, *, n_contexts: int, max_batch_tokens: int) -> int:
    """Return the token budget with which a few texts keep every context busy.

    Args:
        n_tokens: Tokens of all texts together.
        n_contexts: Micro-batches that are computed at the same time.
        max_batch_tokens: Most tokens of a micro-batch.
    """
    share = -(-n_tokens // n_contexts)
    return max(min(share, max_batch_tokens), min(LEAST_TOKENS, max_batch_tokens))

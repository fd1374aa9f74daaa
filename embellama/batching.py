"""Which sequences go into one call of the backend: a pure function."""

from __future__ import annotations

from collections.abc import Sequence


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

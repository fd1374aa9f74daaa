"""The kinds of work that speed is told for: short texts, passages, and both mixed."""

from __future__ import annotations

from benches.texts import passages, short_sentences

PASSAGES_IN_MIXED = 0.22
"""Share of passages among the mixed texts, which makes about 64 tokens a text."""


def works(n_short: int) -> dict[str, list[str]]:
    """Return texts by kind of work: as many short ones as asked for, fewer of the longer.

    short: about 14 tokens a text; mixed: about 64, passages between short ones; passages: about
    240.
    """
    n_mixed, n_passages = max(n_short // 4, 8), max(n_short // 16, 4)
    n_long = round(n_mixed * PASSAGES_IN_MIXED)
    long, short = iter(passages(n_long, seed=3)), iter(short_sentences(n_mixed - n_long, seed=4))
    mixed = []
    for number in range(n_mixed):
        is_long = (number + 1) * n_long // n_mixed > number * n_long // n_mixed
        mixed.append(next(long) if is_long else next(short))
    return {"short": short_sentences(n_short), "mixed": mixed, "passages": passages(n_passages)}

"""What is embedded: works of many texts, none twice, so that no cache of anybody's helps."""

from __future__ import annotations

from collections.abc import Mapping

from benches.peers.peer import ONE_BY_ONE
from embellama.bench.texts import long_texts, short_texts

N_TEXTS = {"short": 1000, "mixed": 240, "passages": 64, ONE_BY_ONE: 100}
"""Texts of each work: a few seconds for the slowest peer on two cores."""

_SHORT_BEFORE = (3, 4)
"""Short sentences before each passage, in turns: 7 of 14 tokens and 2 of 240 make a mean of 64."""


def mixed(count: int) -> list[str]:
    """Return short sentences with a passage between them now and then: about 64 tokens a text."""
    short, long = iter(short_texts(count, seed=3)), iter(long_texts(count // 4 + 1, seed=4))
    texts: list[str] = []
    gap = 0
    while len(texts) < count:
        texts += [next(short) for _ in range(_SHORT_BEFORE[gap % len(_SHORT_BEFORE)])]
        texts.append(next(long))
        gap += 1
    return texts[:count]


def _queries(count: int) -> list[str]:
    return short_texts(count, seed=16)


_MAKERS = {"short": short_texts, "mixed": mixed, "passages": long_texts, ONE_BY_ONE: _queries}


def works(n_short: int) -> dict[str, list[str]]:
    """Make each work with about as many tokens: as many short texts as asked for, fewer others."""
    return make_works(
        {"short": n_short, "mixed": max(n_short // 4, 9), "passages": max(n_short // 16, 4)}
    )


def make_works(n_texts: Mapping[str, int]) -> dict[str, list[str]]:
    """Make each work with as many texts as asked for.

    Raises:
        ValueError: There is no such work.
    """
    unknown = [name for name in n_texts if name not in _MAKERS]
    if unknown:
        raise ValueError(f"no work {', '.join(unknown)}; there are: {', '.join(_MAKERS)}")
    return {name: _MAKERS[name](count) for name, count in n_texts.items()}

"""Texts to measure with: made up on the spot, the same every time."""

from __future__ import annotations

import random

_WHO = [
    "a man",
    "two children",
    "the old farmer",
    "a young woman",
    "the driver",
    "my neighbour",
    "a dog",
]
_DOES = [
    "is holding",
    "is looking at",
    "repairs",
    "has lost",
    "is painting",
    "drops",
    "talks about",
]
_WHAT = ["a red bicycle", "the broken clock", "an empty bottle", "a small boat", "the last ticket"]
_WHERE = [
    "in the park",
    "near the station",
    "at the kitchen table",
    "under a bridge",
    "in the rain",
]


def short_sentences(count: int, seed: int = 1) -> list[str]:
    """Return sentences of about 14 tokens."""
    chooser = random.Random(seed)
    parts = (_WHO, _DOES, _WHAT, _WHERE)
    return [" ".join(chooser.choice(part) for part in parts) + f" {n}." for n in range(count)]


def passages(count: int, seed: int = 2) -> list[str]:
    """Return passages of about 240 tokens."""
    sentences = short_sentences(count * 17, seed)
    return [" ".join(sentences[at : at + 17]) for at in range(0, len(sentences), 17)]

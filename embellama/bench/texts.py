"""Texts to measure with where the user brings none: made up on the spot, the same every time."""

from __future__ import annotations

import random

SENTENCES_A_PASSAGE = 19

_PEOPLE = (
    "a retired teacher", "two children", "the night nurse", "my neighbour", "a young engineer",
    "the ferry's captain", "an old farmer", "the new librarian", "a street musician",
    "our accountant", "the goalkeeper", "a marine biologist",
)  # fmt: skip
_DEEDS = (
    "repaired", "looked for", "lost", "sold", "painted", "wrote about", "borrowed",
    "photographed", "threw away", "inherited", "measured", "forgot",
)  # fmt: skip
_THINGS = (
    "a red bicycle", "the broken clock", "an empty bottle", "a wooden boat", "the last ticket",
    "a box of letters", "the winter coat", "an unpaid invoice", "a faulty sensor",
    "the family recipe", "a cracked window", "an old map",
)  # fmt: skip
_PLACES = (
    "in the park", "near the station", "at the kitchen table", "under a bridge", "in the rain",
    "behind the school", "on the third floor", "at the harbour", "in a crowded train",
    "outside the court", "beside the river", "in the laboratory",
)  # fmt: skip
_SUBJECTS = (
    "inflation", "the vaccine", "sea ice", "the election", "battery storage", "the harvest",
    "a software update", "the orchestra", "soil bacteria", "the housing market", "the comet",
    "public transport",
)  # fmt: skip
_VERDICTS = (
    "surprised most experts", "fell for the third year", "was delayed again",
    "cost twice as much as planned", "divides the town", "worked better than expected",
    "is slowly recovering", "was reported incorrectly", "depends on the weather",
    "needs more money", "has been called a success", "could not be explained",
)  # fmt: skip
_SOURCES = (
    "a new study", "the ministry", "a local newspaper", "the annual report", "one witness",
    "the manufacturer", "a group of students", "the weather service",
)  # fmt: skip
_QUESTIONS = (
    "how do I reset", "who invented", "why does nobody buy", "where can I rent",
    "what is wrong with", "when should I replace", "is it worth keeping",
)  # fmt: skip


def short_texts(count: int, seed: int = 14) -> list[str]:
    """Return sentences and questions of about 14 tokens, no two alike."""
    return _sentences(count, seed)


def long_texts(count: int, seed: int = 240) -> list[str]:
    """Return passages of about 240 tokens, no two alike."""
    sentences = _sentences(count * SENTENCES_A_PASSAGE, seed)
    starts = range(0, len(sentences), SENTENCES_A_PASSAGE)
    return [" ".join(sentences[at : at + SENTENCES_A_PASSAGE]) for at in starts]


def _sentences(count: int, seed: int) -> list[str]:
    chooser = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        # the number keeps an endless supply of different ones
        found.setdefault(_sentence(chooser, len(found) + 1))
    return list(found)


def _sentence(chooser: random.Random, number: int) -> str:
    one = chooser.choice
    match chooser.randrange(4):
        case 0:
            text = f"{one(_PEOPLE)} {one(_DEEDS)} {one(_THINGS)} {one(_PLACES)}"
        case 1:
            text = f"{one(_SUBJECTS)} {one(_VERDICTS)}, according to {one(_SOURCES)} {number}"
        case 2:
            text = f"{one(_QUESTIONS)} {one(_THINGS)} {one(_PLACES)}"
        case _:
            text = f"in {1900 + number % 120} {one(_PEOPLE)} said that {one(_SUBJECTS)} "
            text += one(_VERDICTS)
    return text[0].upper() + text[1:] + ("?" if text.startswith(_QUESTIONS) else ".")

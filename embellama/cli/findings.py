"""One thing that a check found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at and how it is.

    Attributes:
        level: ``"ok"``; ``"note"``, where it works and could be better; ``"FAIL"``.
        text: A line for the user, with the way out where there is one.
    """

    level: Level
    text: str


def ok(text: str) -> Finding:
    """It is as it should be."""
    return Finding("ok", text)


def note(text: str) -> Finding:
    """It works, and could be better."""
    return Finding("note", text)


def failure(text: str) -> Finding:
    """It is wrong."""
    return Finding("FAIL", text)

"""Figures as people read them: rounded, with a unit; a dash for what is not a number."""

from __future__ import annotations

from math import floor, isfinite, log10

MISSING = "–"


def rounded(value: float) -> str:
    """Write three significant digits, and the whole part in full with commas."""
    if not isfinite(value):
        return MISSING
    decimals = 2 - floor(log10(abs(value))) if value else 0
    return f"{value:,.{min(max(decimals, 0), 4)}f}"


def size(size_bytes: float) -> str:
    """Write a size in decimal units: kB, MB, GB."""
    if not isfinite(size_bytes):
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size_bytes) >= factor:
            return f"{rounded(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} bytes"


def milliseconds(seconds: float) -> str:
    """Write seconds as milliseconds, without the unit."""
    return rounded(seconds * 1000)


def cosine(value: float) -> str:
    """Write a cosine with two digits of its distance from 1, and at most six decimals."""
    if not isfinite(value):
        return MISSING
    lost = 1 - value
    if abs(lost) < 5e-7:
        return "1"
    return f"{value:.{min(max(1 - floor(log10(abs(lost))), 3), 6)}f}"


def score(value: float) -> str:
    """Write a correlation or nDCG with four decimals: the fourth is about what texts decide."""
    return f"{value:.4f}" if isfinite(value) else MISSING


def percent(share: float) -> str:
    """Write a share of 1 in percent."""
    return f"{share * 100:.1f} %" if isfinite(share) else MISSING

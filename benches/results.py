"""Figures of a bench: shown, written as JSON, and held against those of an earlier run.

Every bench that takes `--json FILE` writes what it measured, round by round; with
`--compare old.json` it tells what has become worse, and ends with status 1 if anything has.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

TOLERANCE = 0.10
"""By how much a median may be worse before it counts."""

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Figure:
    """One thing measured: a value for each round."""

    name: str
    unit: str
    better: Better
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.values, [25, 75]).tolist()
        return low, high

    def __str__(self) -> str:
        text = f"{self.name:46} {amount(self.median):>9} {self.unit}"
        if len(self.values) > 1:
            text += f"   ({amount(min(self.values))}..{amount(max(self.values))})"
        return text


def amount(value: float) -> str:
    """Write a number with three digits that tell something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@dataclass
class Results:
    """What one run of a bench measured."""

    bench: str
    machine: str
    settings: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)

    def add(
        self,
        name: str,
        values: float | Sequence[float],
        unit: str,
        *,
        better: Better,
        show: bool = True,
    ) -> Figure:
        """Note a figure, and print it."""
        several = tuple(map(float, values)) if isinstance(values, Sequence) else (float(values),)
        if name in self.figures:
            raise ValueError(f"{name!r} was measured before")
        figure = self.figures[name] = Figure(name, unit, better, several)
        if show:
            print(figure, flush=True)
        return figure

    def write(self, path: Path) -> None:
        document = {
            "bench": self.bench,
            "machine": self.machine,
            "settings": self.settings,
            "figures": [asdict(figure) for figure in self.figures.values()],
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Results:
        document = json.loads(path.read_text(encoding="utf-8"))
        figures = [
            Figure(**{**one, "values": tuple(one["values"])}) for one in document.pop("figures")
        ]
        return cls(**document, figures={figure.name: figure for figure in figures})


@dataclass(frozen=True)
class Change:
    """A figure of two runs. ``worse`` is a share of the old median, negative where it is better."""

    name: str
    old: Figure
    new: Figure
    worse: float
    is_regression: bool

    def __str__(self) -> str:
        word = "worse" if self.worse > 0 else "better"
        return (
            f"{self.name:46} {amount(self.old.median):>9} → {amount(self.new.median)} "
            f"{self.new.unit}: {abs(self.worse):.0%} {word}"
        )


def compare(old: Results, new: Results, tolerance: float = TOLERANCE) -> list[Change]:
    """Hold the figures that both runs have against each other.

    A regression is a median that is worse by more than the tolerance, where the middle halves of
    the rounds do not overlap either: what lies within the spread is no news.
    """
    changes = []
    for name, now in new.figures.items():
        before = old.figures.get(name)
        if before is None or not before.median:
            continue
        sign = 1 if now.better == "lower" else -1
        worse = sign * (now.median - before.median) / abs(before.median)
        lower, higher = (before, now) if now.better == "lower" else (now, before)
        apart = lower.quartiles[1] < higher.quartiles[0]
        changes.append(Change(name, before, now, worse, worse > tolerance and apart))
    return changes


def differences(old: Results, new: Results) -> list[str]:
    """Say what makes two runs hard to compare."""
    if old.bench != new.bench:
        return [f"the other file is of benches.{old.bench}"]
    said = []
    if old.machine != new.machine:
        said.append(f"another machine or build: {old.machine}")
    for name in sorted(old.settings.keys() | new.settings.keys()):
        before, now = old.settings.get(name), new.settings.get(name)
        if before != now:
            said.append(f"{name} was {before}, is {now}")
    for title, one, other in (("not there before", new, old), ("gone", old, new)):
        names = [name for name in one.figures if name not in other.figures]
        if names:
            said.append(f"{title}: {', '.join(names)}")
    return said


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every bench has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, help="write the figures of every round to this file")
    made.add_argument("--compare", type=Path, help="an earlier --json file to compare with")
    return made


def parsed(options_of: argparse.ArgumentParser) -> argparse.Namespace:
    """Add ``--backend``, parse, and have every load here and in child processes take it."""
    options_of.add_argument("--backend", choices=("auto", "llama", "native"), default="auto")
    options = options_of.parse_args()
    os.environ["EMBELLAMA_BACKEND"] = options.backend
    return options


def started(bench: str, machine: str, options: argparse.Namespace) -> Results:
    """Print the machine, and return where the figures go."""
    print(machine, flush=True)
    given = {name: v for name, v in vars(options).items() if name not in ("json", "compare")}
    settings = json.loads(json.dumps(given, default=str))  # as they will be read again
    return Results(bench, re.sub(r", load [\d.]+", "", machine), settings)


def finished(results: Results, options: argparse.Namespace) -> int:
    """Write and compare as the options say; return the status to exit with."""
    old = Results.read(options.compare) if options.compare else None  # may be the same file
    if options.json:
        results.write(options.json)
        print(f"written: {options.json}")
    if old is None:
        return 0
    changes = compare(old, results)
    regressions = [change for change in changes if change.is_regression]
    print(f"\nagainst {options.compare}: {len(changes)} figures, {len(regressions)} worse")
    for line in differences(old, results):
        print(f"  note: {line}")
    for change in sorted(regressions, key=lambda change: -change.worse):
        print(f"  {change}")
    return 1 if regressions else 0

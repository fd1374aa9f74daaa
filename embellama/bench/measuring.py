"""Several loaded types measured in turns, so that the machine's drift hits all alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from embellama.bench.candidates import Report
from embellama.bench.data import evenly_spaced
from embellama.bench.findings import Latency, Speed
from embellama.engine import EmbeddingEngine
from embellama.errors import ConfigurationError, EmbellamaError, InvalidInputError
from embellama.types import FloatArray, Kind

_T = TypeVar("_T")

_FEWEST_TEXTS = 4
_TRIED_TEXTS = 12
_WARMING = 2
"""Single texts before those that count: the types before have taken the CPU's caches."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        n_rounds: How often all types take turns.
        round_s: About how long the slowest type takes for one kind of texts in a round.
        n_singles: Single texts of each type, over all rounds.
        n_probes: Fresh processes of each type.
        max_texts: Texts that the fidelity is measured on.
        max_pairs: Pairs that Spearman is computed of; all if None.
    """

    n_rounds: int
    round_s: float
    n_singles: int
    n_probes: int
    max_texts: int
    max_pairs: int | None = None


FULL = Effort(n_rounds=7, round_s=0.7, n_singles=280, n_probes=3, max_texts=5000)
QUICK = Effort(n_rounds=2, round_s=0.1, n_singles=20, n_probes=1, max_texts=200, max_pairs=200)


class Contest:
    """The types still in the running; one that fails leaves it, and the others go on.

    Args:
        file_types: Their names.
        failed: Where the reasons are kept.
    """

    def __init__(self, file_types: Sequence[str], failed: dict[str, str]) -> None:
        self.running = list(file_types)
        self.failed = failed

    def each(self, measure: Callable[[str], _T], *, turn: int = 0) -> dict[str, _T]:
        """Measure every type that still runs, in another order in each turn.

        Returns:
            What each gave, without those that failed.

        Raises:
            ConfigurationError, InvalidInputError: The same would happen to the others.
        """
        order = list(self.running)
        random.Random(turn).shuffle(order)  # so that none always comes after the same other one
        found = {}
        for file_type in order:
            try:
                found[file_type] = measure(file_type)
            except (ConfigurationError, InvalidInputError):
                raise  # of settings and texts, which no type can help
            except EmbellamaError as exc:
                self.drop(file_type, str(exc))
        return found

    def drop(self, file_type: str, reason: str) -> None:
        """Take a type out."""
        self.running.remove(file_type)
        self.failed[file_type] = reason


class Embedder:
    """An engine with the types under their names, asked as an application would ask it.

    Texts over a model's limit are cut; where the model has prompts, a text gets the document's.
    """

    def __init__(self, engine: EmbeddingEngine) -> None:
        self._engine = engine

    def embed(self, file_type: str, texts: Sequence[str], kind: Kind = "document") -> FloatArray:
        """Return float32 (n_texts, n_embd)."""
        with self._prompted(file_type, kind) as (role, prompt):
            rows: FloatArray = self._engine.embed_batch(
                file_type, texts, kind=role, prompt=prompt, overflow="truncate"
            )
        return rows

    def embed_one(self, file_type: str, text: str) -> None:
        """Embed a single text, for the time it takes."""
        with self._prompted(file_type, "document") as (role, prompt):
            self._engine.embed(file_type, text, kind=role, prompt=prompt, overflow="truncate")

    def count_tokens(self, file_type: str, texts: Sequence[str]) -> tuple[int, int]:
        """Embed texts; return their tokens as they were computed, and how many were cut."""
        with self._prompted(file_type, "document") as (role, prompt):
            done = self._engine.embed_detailed(
                file_type, texts, kind=role, prompt=prompt, overflow="truncate"
            )
        return done.usage.n_tokens, sum(text.truncated for text in done.texts)

    @contextmanager
    def _prompted(self, file_type: str, kind: Kind) -> Iterator[tuple[Kind | None, str | None]]:
        """Give the role where prompts are known, else an empty prompt, which warns of nothing."""
        known = kind in self._engine.get_model_info(file_type).prompts
        yield (kind, None) if known else (None, "")


def measure_speeds(
    embedder: Embedder,
    contest: Contest,
    works: Mapping[str, Sequence[str]],
    effort: Effort,
    report: Report,
) -> dict[str, dict[str, Speed]]:
    """Measure how fast each type embeds each kind of texts: interleaved rounds, medians.

    All types get the same texts, as many as the slowest embeds in the time of a round.

    Args:
        embedder: The types, loaded.
        contest: Those to measure.
        works: Texts by their kind.
        effort: How many rounds.
        report: Told of each round.

    Returns:
        By type and kind of texts.
    """
    fitted = {
        name: evenly_spaced(texts, _fitting(embedder, contest, texts, effort))
        for name, texts in works.items()
    }
    n_tokens = {
        name: contest.each(partial(_n_tokens, embedder, texts)) for name, texts in fitted.items()
    }
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in fitted}
    for turn in range(effort.n_rounds):
        report("measuring speed", turn, effort.n_rounds)
        for name, texts in fitted.items():
            seconds = contest.each(partial(_batch_s, embedder, texts), turn=turn)
            for one, duration in seconds.items():
                taken[name].setdefault(one, []).append(duration)
    report("measuring speed", effort.n_rounds, effort.n_rounds)
    return {
        one: {
            name: _speed(len(texts), n_tokens[name][one], taken[name][one])
            for name, texts in fitted.items()
        }
        for one in contest.running
    }


def _fitting(embedder: Embedder, contest: Contest, texts: Sequence[str], effort: Effort) -> int:
    """Return how many texts the slowest type embeds in the time of a round; warms all up."""
    tried = evenly_spaced(texts, _TRIED_TEXTS)
    contest.each(lambda one: embedder.embed(one, tried))
    seconds = contest.each(partial(_batch_s, embedder, tried))
    slowest = max(seconds.values(), default=effort.round_s)
    return max(_FEWEST_TEXTS, int(len(tried) * effort.round_s / slowest))


def measure_latencies(
    embedder: Embedder, contest: Contest, texts: Sequence[str], effort: Effort, report: Report
) -> dict[str, Latency]:
    """Measure how long a single text takes, in turns of a block of texts.

    Args:
        embedder: The types, loaded.
        contest: Those to measure.
        texts: Taken one after the other, the same for all types.
        effort: How many texts, in how many rounds.
        report: Told of each round.

    Returns:
        By type.
    """
    samples: dict[str, list[float]] = {}
    size = -(-effort.n_singles // effort.n_rounds)
    spread = evenly_spaced(texts, effort.n_rounds * size)
    for turn in range(effort.n_rounds):
        report("measuring single texts", turn, effort.n_rounds)
        block = [spread[(turn * size + i) % len(spread)] for i in range(size)]
        taken = contest.each(partial(_singles_s, embedder, block), turn=turn)
        for one, seconds in taken.items():
            samples.setdefault(one, []).extend(seconds)
    report("measuring single texts", effort.n_rounds, effort.n_rounds)
    return {one: latency_of(samples[one]) for one in contest.running}


def _n_tokens(embedder: Embedder, texts: Sequence[str], file_type: str) -> int:
    return embedder.count_tokens(file_type, texts)[0]


def _batch_s(embedder: Embedder, texts: Sequence[str], file_type: str) -> float:
    start = time.perf_counter()
    embedder.embed(file_type, texts)
    return time.perf_counter() - start


def _singles_s(embedder: Embedder, texts: Sequence[str], file_type: str) -> list[float]:
    for text in texts[:_WARMING]:
        embedder.embed_one(file_type, text)
    taken = []
    for text in texts:
        start = time.perf_counter()
        embedder.embed_one(file_type, text)
        taken.append(time.perf_counter() - start)
    return taken


def latency_of(samples: Sequence[float]) -> Latency:
    """Summarise durations; percentiles between two samples are interpolated."""
    p50, p95, p99 = np.percentile(samples, [50, 95, 99]).tolist()
    return Latency(p50=p50, p95=p95, p99=p99, samples=tuple(samples))


def _speed(n_texts: int, n_tokens: int, taken: Sequence[float]) -> Speed:
    median = statistics.median(taken)
    return Speed(
        texts_per_s=n_texts / median,
        tokens_per_s=n_tokens / median,
        spread=(n_texts / max(taken), n_texts / min(taken)),
    )

"""What a model has done so far: counts, and how long the steps of the last ones took."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

RECENT = 2048
"""Durations of each step that are kept: enough for a p99, and 64 KB a step."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How long a step took, in seconds, over the last `RECENT` times.

    Attributes:
        p50: The median.
        p95: 95 % took no longer.
        p99: 99 % took no longer.
    """

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, durations: Sequence[float]) -> Quantiles | None:
        """Compute them, interpolating between neighbours; None where nothing was measured."""
        if not durations:
            return None
        return cls(*np.percentile(durations, [50, 95, 99]).tolist())


@dataclass(frozen=True, slots=True)
class StatisticsSnapshot:
    """What one model had done at one moment. All counts belong to that same moment.

    Attributes:
        model: The name it is loaded under.
        n_texts: Texts answered, those from the cache included.
        n_tokens: Tokens computed, special tokens included; none for what the cache answered.
        n_batches: Micro-batches computed.
        n_slots: Tokens that they had room for; ``n_tokens / n_slots`` is how full they were.
        computed_s: Seconds that they took, added up over the workers.
        cache_hits: Texts that the cache answered.
        cache_misses: Texts that it was asked for and did not have.
        n_truncated: Texts that were cut.
        n_dropped_tokens: Tokens that those cuts took away.
        n_errors: Calls that raised.
        queue_s: Between a micro-batch's admission and its start; None if there was none.
        tokenize_s: To tokenize a call's texts, or a window of them.
        inference_s: To compute a micro-batch.
    """

    model: str
    n_texts: int
    n_tokens: int
    n_batches: int
    n_slots: int
    computed_s: float
    cache_hits: int
    cache_misses: int
    n_truncated: int
    n_dropped_tokens: int
    n_errors: int
    queue_s: Quantiles | None
    tokenize_s: Quantiles | None
    inference_s: Quantiles | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)


class ModelStatistics:
    """Counts what a model does. Every method may be called from any thread.

    A record takes under a microsecond: one short lock and a few additions. Quantiles are computed
    outside the lock, when somebody asks.

    Args:
        model: The name it is loaded under.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._n_texts = self._n_tokens = self._n_batches = self._n_slots = 0
        self._computed_s = 0.0
        self._cache_hits = self._cache_misses = 0
        self._n_truncated = self._n_dropped_tokens = self._n_errors = 0
        self._queue_s: deque[float] = deque(maxlen=RECENT)
        self._tokenize_s: deque[float] = deque(maxlen=RECENT)
        self._inference_s: deque[float] = deque(maxlen=RECENT)

    def record_texts(
        self, n_texts: int, *, n_truncated: int = 0, n_dropped_tokens: int = 0
    ) -> None:
        """Count texts that were answered, and what was cut from them."""
        with self._lock:
            self._n_texts += n_texts
            self._n_truncated += n_truncated
            self._n_dropped_tokens += n_dropped_tokens

    def record_tokenization(self, tokenize_s: float) -> None:
        """Note how long the texts of a call, or of a window, took to tokenize."""
        with self._lock:
            self._tokenize_s.append(tokenize_s)

    def record_batch(
        self, *, n_tokens: int, n_slots: int, queue_s: float, inference_s: float
    ) -> None:
        """Count a micro-batch that was computed, with its waiting and computing time."""
        with self._lock:
            self._n_batches += 1
            self._n_tokens += n_tokens
            self._n_slots += n_slots
            self._computed_s += inference_s
            self._queue_s.append(queue_s)
            self._inference_s.append(inference_s)

    def record_lookups(self, *, hits: int, misses: int) -> None:
        """Count texts that the cache was asked for."""
        with self._lock:
            self._cache_hits += hits
            self._cache_misses += misses

    def record_error(self) -> None:
        """Count a call that raised."""
        with self._lock:
            self._n_errors += 1

    def snapshot(self) -> StatisticsSnapshot:
        """Return the counts of this moment and the quantiles of the recent durations."""
        with self._lock:
            counts: dict[str, Any] = {
                "n_texts": self._n_texts,
                "n_tokens": self._n_tokens,
                "n_batches": self._n_batches,
                "n_slots": self._n_slots,
                "computed_s": self._computed_s,
                "cache_hits": self._cache_hits,
                "cache_misses": self._cache_misses,
                "n_truncated": self._n_truncated,
                "n_dropped_tokens": self._n_dropped_tokens,
                "n_errors": self._n_errors,
            }
            queue_s, tokenize_s = tuple(self._queue_s), tuple(self._tokenize_s)
            inference_s = tuple(self._inference_s)
        return StatisticsSnapshot(
            model=self._model,
            **counts,
            queue_s=Quantiles.of(queue_s),
            tokenize_s=Quantiles.of(tokenize_s),
            inference_s=Quantiles.of(inference_s),
        )

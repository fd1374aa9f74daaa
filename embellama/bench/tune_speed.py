"""Texts a second of a loaded model under a layout: real passes on contexts, each on its thread."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embellama.batching import plan_micro_batches
from embellama.tuning import FlashAttn, Work
from embellama.types import BackendContext, BackendModel, ContextOptions, Layout, MicroBatch

MEAN_TOKENS: Mapping[Work, int] = {"short": 14, "long": 240, "single": 14}
"""Tokens of a text. Source: a short sentence, and a passage as people cut documents into."""

_N_TEXTS: Mapping[Work, int] = {"short": 256, "long": 48, "single": 1}
_FEWEST_PASSES = 1
_FEWEST_PASSES_ALONE = 3
"""Of a text alone the median pass counts, not how many there were."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What the weights are, and how attention is computed.

    Attributes:
        file_type: Another type than the file's own; None for its own.
        flash_attn: As in `ModelConfig`.
    """

    file_type: str | None = None
    flash_attn: FlashAttn = "auto"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured: a variant of a model under a layout."""

    variant: Variant
    layout: Layout


@dataclass(frozen=True, slots=True)
class Texts:
    """What the texts of a measurement are like.

    Attributes:
        n_vocab: Ids are below this.
        limit: The model's limit in tokens.
        max_batch_requests: Most texts in a micro-batch.
    """

    n_vocab: int
    limit: int
    max_batch_requests: int

    def lengths(self, work: Work) -> list[int]:
        """Make up token counts: up to a quarter around the mean, none over the limit."""
        factors = np.random.default_rng(1).uniform(0.75, 1.25, _N_TEXTS[work]).tolist()
        mean = MEAN_TOKENS[work]
        wanted = [mean] if work == "single" else [round(mean * factor) for factor in factors]
        return [max(1, min(length, self.limit)) for length in wanted]

    def plan(self, work: Work, layout: Layout) -> list[list[int]]:
        """Return which texts of a work share a micro-batch under a layout."""
        return plan_micro_batches(
            self.lengths(work),
            max_batch_tokens=layout.max_batch_tokens,
            max_batch_requests=self.max_batch_requests,
        )

    def batches(self, work: Work, layout: Layout) -> list[MicroBatch]:
        """Make the micro-batches of a work. Which ids they have does not matter to the speed."""
        generator = np.random.default_rng(2)
        sequences = [
            generator.integers(0, self.n_vocab, length, dtype=np.int32)
            for length in self.lengths(work)
        ]
        return [
            MicroBatch.pack([sequences[index] for index in batch])
            for batch in self.plan(work, layout)
        ]


@dataclass(frozen=True, slots=True)
class _Passes:
    """What a lane got done: tokens, in how many seconds, and those of the median pass."""

    n_tokens: int
    seconds: float
    median_s: float


class _Lane:
    """A context on the thread that owns it, going round the micro-batches."""

    def __init__(
        self, model: BackendModel, options: ContextOptions, batches: Sequence[MicroBatch], at: int
    ) -> None:
        self._batches = batches
        self._at = at
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embellama-tune")
        self._context: BackendContext | None = None
        try:
            self._context = self._thread.submit(model.create_context, options).result()
            self._thread.submit(self._next).result()  # the first pass touches the buffers
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        assert self._context is not None
        return self._context.size_bytes

    def start(
        self, together: threading.Barrier, seconds: float, fewest: int
    ) -> Callable[[], _Passes]:
        return self._thread.submit(self._run, together, seconds, fewest).result

    def _run(self, together: threading.Barrier, seconds: float, fewest: int) -> _Passes:
        together.wait()
        start = last = time.perf_counter()
        n_tokens = 0
        taken: list[float] = []
        while len(taken) < fewest or last - start < seconds:
            n_tokens += self._next()
            now = time.perf_counter()
            taken.append(now - last)
            last = now
        return _Passes(n_tokens, last - start, statistics.median(taken))

    def _next(self) -> int:
        batch = self._batches[self._at % len(self._batches)]
        self._at += 1
        assert self._context is not None
        self._context.run(batch)
        return batch.n_tokens

    def close(self) -> None:
        if self._context is not None:
            self._thread.submit(self._context.close).result()
        self._thread.shutdown()


class SpeedMeter:
    """Measures settings, with contexts that stay between measurements where there is room.

    Args:
        model_of: Gives the loaded model of a variant; contexts are made on it and closed here.
        texts: What is computed.
        allowed_bytes: For the contexts of all settings together; those of one may take more.
    """

    def __init__(
        self, model_of: Callable[[Variant], BackendModel], texts: Texts, *, allowed_bytes: int
    ) -> None:
        self._model_of = model_of
        self._texts = texts
        self._allowed_bytes = allowed_bytes
        self._lanes: dict[tuple[Work, Setting], list[_Lane]] = {}

    def measure(self, work: Work, setting: Setting, seconds: float) -> float:
        """Return the texts a second of a setting, measured for about so many seconds.

        Raises:
            EmbeddingGenerationError: A context cannot be made, or computes nothing.
        """
        lanes = self._lanes_of(work, setting)
        together = threading.Barrier(len(lanes))
        fewest = _FEWEST_PASSES_ALONE if work == "single" else _FEWEST_PASSES
        try:
            running = [lane.start(together, seconds, fewest) for lane in lanes]
            found = [passes() for passes in running]
        except BaseException:
            together.abort()  # an interrupt may have left some waiting for others
            raise
        if work == "single":
            return 1 / found[0].median_s
        lengths = self._texts.lengths(work)
        tokens_per_s = sum(passes.n_tokens / passes.seconds for passes in found)
        return tokens_per_s * len(lengths) / sum(lengths)

    def _lanes_of(self, work: Work, setting: Setting) -> list[_Lane]:
        key = (work, setting)
        lanes = self._lanes.pop(key, None)
        if lanes is None:
            lanes = self._open(work, setting)
        self._lanes[key] = lanes  # the latest stands last
        self._make_room()
        return lanes

    def _open(self, work: Work, setting: Setting) -> list[_Lane]:
        layout = setting.layout
        batches = self._texts.batches(work, layout)
        options = ContextOptions(
            n_tokens=max(layout.max_batch_tokens, *(batch.n_tokens for batch in batches)),
            n_sequences=self._texts.max_batch_requests,
            n_threads=layout.n_threads,
        )
        model = self._model_of(setting.variant)
        lanes: list[_Lane] = []
        try:
            for index in range(layout.n_contexts):
                at = index * len(batches) // layout.n_contexts
                lanes.append(_Lane(model, options, batches, at))
        except BaseException:
            _close(lanes)
            raise
        return lanes

    def _make_room(self) -> None:
        while len(self._lanes) > 1 and self._bytes() > self._allowed_bytes:
            _close(self._lanes.pop(next(iter(self._lanes))))

    def _bytes(self) -> int:
        return sum(lane.size_bytes for lanes in self._lanes.values() for lane in lanes)

    def close(self) -> None:
        """Close all contexts. May be called again, and so may `measure`."""
        while self._lanes:
            _close(self._lanes.popitem()[1])


def _close(lanes: Sequence[_Lane]) -> None:
    for lane in lanes:
        lane.close()

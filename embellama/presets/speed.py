"""How fast a model is on this machine, measured with the model for a fraction of a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from embellama.gguf import GGUFMetadata
from embellama.presets.choice import Choice
from embellama.types import BackendModel, ContextOptions, MicroBatch

MEASURING_S = 0.3
"""For all that is measured together; making the contexts comes on top."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured, as it was.

    Attributes:
        texts_per_s: With all contexts at work on full micro-batches.
        latency_s: Median of one text alone, tokenization not included.
    """

    texts_per_s: float
    latency_s: float


def measure(
    model: BackendModel, metadata: GGUFMetadata, choices: Sequence[Choice], *, mean_tokens: int
) -> list[Speed]:
    """Measure a loaded model with each choice's contexts and threads.

    Args:
        model: The model; its contexts are made and freed here.
        metadata: Of its file.
        choices: What to measure, one after the other.
        mean_tokens: Tokens of an ordinary text.
    """
    seconds = MEASURING_S / len(choices)
    return [_measure_one(model, metadata, choice, mean_tokens, seconds) for choice in choices]


def _measure_one(
    model: BackendModel, metadata: GGUFMetadata, choice: Choice, mean_tokens: int, seconds: float
) -> Speed:
    n_texts = max(1, min(choice.max_batch_tokens // mean_tokens, choice.max_batch_requests))
    options = ContextOptions(
        n_tokens=max(choice.max_batch_tokens, mean_tokens),
        n_sequences=choice.max_batch_requests,
        n_threads=choice.n_threads,
    )
    # which ids they are does not matter to the speed
    ids = np.arange(mean_tokens, dtype=np.int32) % metadata.n_vocab
    alone = _median_s(model, options, MicroBatch.pack([ids]), seconds / 3)
    full = MicroBatch.pack([ids] * n_texts)
    with ThreadPoolExecutor(choice.n_contexts) as pool:
        running = [
            pool.submit(_median_s, model, options, full, 2 * seconds / 3)
            for _ in range(choice.n_contexts)
        ]
        rates = [n_texts / pass_s.result() for pass_s in running]
    return Speed(texts_per_s=sum(rates), latency_s=alone)


def _median_s(
    model: BackendModel, options: ContextOptions, batch: MicroBatch, seconds: float
) -> float:
    """Run a micro-batch over and over on a context of this thread; return the median duration."""
    context = model.create_context(options)
    try:
        context.run(batch)  # the first one touches the buffers
        taken: list[float] = []
        end = time.perf_counter() + seconds
        while len(taken) < 2 or time.perf_counter() < end:
            start = time.perf_counter()
            context.run(batch)
            taken.append(time.perf_counter() - start)
    finally:
        context.close()
    return statistics.median(taken)

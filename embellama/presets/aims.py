"""One aim each, without looking at the model. Source of the ratios: benches/presets.py."""

from __future__ import annotations

from embellama._parallel import available_cores
from embellama.config import MAX_CONTEXTS
from embellama.errors import ConfigurationError
from embellama.presets.choice import Choice


def cores_to_use(n_cores: int | None) -> int:
    """Check a number of cores; the physical ones this process may use if None.

    Raises:
        ConfigurationError: It is below 1.
    """
    if n_cores is not None and n_cores < 1:
        raise ConfigurationError(f"n_cores = {n_cores}; at least one core is needed")
    return n_cores if n_cores is not None else available_cores(physical=True)


def high_throughput(*, n_cores: int | None = None) -> Choice:
    """Choose a pass of one thread on every core: none waits for another within a layer."""
    n_contexts = min(cores_to_use(n_cores), MAX_CONTEXTS)
    return Choice(
        n_threads=1,
        n_contexts=n_contexts,
        rationale=(
            f"{n_contexts} contexts of one thread: threads that share a pass wait for each other "
            "after every layer",
        ),
    )


def low_latency(*, n_cores: int | None = None, n_callers: int = 2) -> Choice:
    """Choose a context for every caller and one to spare; they share the cores.

    Raises:
        ConfigurationError: ``n_callers`` is out of range.
    """
    if not 1 <= n_callers < MAX_CONTEXTS:
        raise ConfigurationError(f"n_callers = {n_callers}; it has to be 1 to {MAX_CONTEXTS - 1}")
    cores = cores_to_use(n_cores)
    n_threads = max(1, cores // n_callers)
    if n_callers == 1:
        return Choice(
            n_threads=n_threads,
            n_contexts=1,
            rationale=(f"one context of {n_threads} threads: one caller at a time has all cores",),
        )
    return Choice(
        n_threads=n_threads,
        n_contexts=n_callers + 1,
        rationale=(
            f"{n_callers + 1} contexts: one for each of {n_callers} callers and one to spare, so "
            "that a short text is not kept by a long one that is being computed",
            f"{n_threads} threads a pass: {cores} cores shared by {n_callers} callers",
        ),
    )


def low_memory() -> Choice:
    """Choose one context of small micro-batches."""
    return Choice(
        n_threads=available_cores(physical=True),
        n_contexts=1,
        max_batch_tokens=64,
        max_batch_requests=8,
        n_jobs=1,
        rationale=(
            "one context, micro-batches of up to 64 tokens: llama.cpp keeps a score of every "
            "token of the vocabulary for every token of a micro-batch",
            "at most 8 texts in one: that many scores are kept from the beginning",
            "a single text takes as much as a micro-batch of its length: n_ctx bounds it",
            "weights take most of the rest: Q8_0 takes half of F16",
        ),
    )

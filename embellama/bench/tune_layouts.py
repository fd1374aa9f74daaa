"""Which layouts are worth measuring for a kind of work."""

from __future__ import annotations

import math
from collections.abc import Callable

from embellama.bench.tune_speed import Texts
from embellama.config import MAX_CONTEXTS, MAX_THREADS
from embellama.tuning import Work
from embellama.types import Layout

BATCH_TOKENS = (64, 128, 256, 512, 1024)


def candidate_layouts(
    work: Work,
    default: Layout,
    texts: Texts,
    *,
    n_cores: int,
    fits: Callable[[Layout], bool] = lambda _: True,
) -> list[Layout]:
    """List layouts of a work in order of preference, the default first.

    Every core has one thread: as many contexts as there are cores, or fewer of several threads
    each; where those do not divide the cores evenly, some stay idle. Of layouts that come to the
    same micro-batches the most preferred one stands for all.

    Args:
        work: The work.
        default: What is done where nothing was measured.
        texts: What is computed.
        n_cores: Cores to share out.
        fits: Whether there is memory for a layout; not asked of the default.
    """
    shares = _shares(n_cores)
    if work == "single":
        threads = sorted(_shares(n_cores), reverse=True)
        ways = [Layout(1, n, default.max_batch_tokens) for n in threads if n <= MAX_THREADS]
    else:
        ways = [
            Layout(n, n_cores // n, n_tokens)
            for n in shares
            for n_tokens in {*BATCH_TOKENS, default.max_batch_tokens}
            if n <= MAX_CONTEXTS and n_cores // n <= MAX_THREADS
        ]
    ways = sorted(ways, key=lambda way: _distance(way, default))
    return _distinct(work, [default, *[way for way in ways if fits(way)]], texts)


def _shares(n_cores: int) -> list[int]:
    """List numbers of contexts, the largest for each number of threads that one may have."""
    return sorted({n_cores // n_threads for n_threads in range(1, n_cores + 1)})


def _distance(way: Layout, default: Layout) -> tuple[float, int, int]:
    """Order layouts: micro-batches like the default's first, then few contexts, then small ones."""
    ratio = abs(math.log2(way.max_batch_tokens / default.max_batch_tokens))
    contexts = abs(way.n_contexts - default.n_contexts)
    return ratio, contexts, way.max_batch_tokens


def _distinct(work: Work, ways: list[Layout], texts: Texts) -> list[Layout]:
    found: dict[tuple[int, int, str], Layout] = {}
    for way in ways:
        plan = repr(texts.plan(work, way))
        found.setdefault((way.n_contexts, way.n_threads, plan), way)
    return list(found.values())

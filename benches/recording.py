"""What the engine's contexts compute, taken down as they do it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embellama._llama.context import LlamaContext
from embellama._native.context import NativeContext
from embellama.types import MicroBatch


@dataclass(frozen=True)
class Seen:
    """A micro-batch, when it began, and how many seconds it took."""

    batch: MicroBatch
    begin_s: float
    seconds: float


_CONTEXTS: tuple[Any, ...] = (LlamaContext, NativeContext)


@contextmanager
def recorded() -> Iterator[list[Seen]]:
    """Collect the micro-batches of all contexts, of either backend, while a block runs."""
    seen: list[Seen] = []

    def noting(run: Callable[[Any, MicroBatch], Any]) -> Callable[[Any, MicroBatch], Any]:
        def run_and_note(self: Any, batch: MicroBatch) -> Any:
            start = time.perf_counter()
            rows = run(self, batch)
            seen.append(Seen(batch, start, time.perf_counter() - start))
            return rows

        return run_and_note

    originals = [kind.run for kind in _CONTEXTS]
    for kind, run in zip(_CONTEXTS, originals, strict=True):
        kind.run = noting(run)
    try:
        yield seen
    finally:
        for kind, run in zip(_CONTEXTS, originals, strict=True):
            kind.run = run

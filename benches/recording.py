"""What the engine's contexts compute, taken down as they do it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from embellama._llama.context import LlamaContext
from embellama.types import MicroBatch


@dataclass(frozen=True)
class Seen:
    """A micro-batch, when it began, and how many seconds it took."""

    batch: MicroBatch
    begin_s: float
    seconds: float


@contextmanager
def recorded() -> Iterator[list[Seen]]:
    """Collect the micro-batches of all contexts while a block runs."""
    seen: list[Seen] = []
    run = LlamaContext.run

    def noting(self: LlamaContext, batch: MicroBatch) -> Any:
        start = time.perf_counter()
        rows = run(self, batch)
        seen.append(Seen(batch, start, time.perf_counter() - start))
        return rows

    LlamaContext.run = noting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        LlamaContext.run = run  # type: ignore[method-assign]

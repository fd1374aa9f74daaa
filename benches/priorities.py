"""What an interactive caller notices of a bulk job.

    python -m benches.priorities [--model minilm] [--bulk passages|short] [--seconds 10]
                                 [--rounds 3] [--backend auto] [--json FILE] [--compare old.json]

One thread embeds a short text every 50 ms: with nothing else going on, and while another thread
streams texts without a pause. Told are p50 and p95 of both, the bulk rate alone and beside, the
time of one bulk micro-batch (alone, and beside the interactive caller, for whom they are made
smaller where they hold more than one text), and whether p95 busy <= p95 idle + one bulk
micro-batch, as computed when bulk was alone.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from benches.machine import describe_machine
from benches.recording import recorded
from benches.results import Results, finished, parsed, parser, started
from embellama import EmbeddingEngine, ModelConfig
from embellama.bench.texts import long_texts, short_texts

EVERY_S = 0.050


@dataclass
class Bulk:
    """A thread that embeds texts over and over until it is told to stop."""

    engine: EmbeddingEngine
    model: str
    texts: list[str]

    def __enter__(self) -> Bulk:
        self.n_texts = 0
        self.seconds = 0.0
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        start = time.perf_counter()
        try:
            for _ in self.engine.embed_stream(self.model, self._endless(), priority="bulk"):
                self.n_texts += 1
        except Exception as exc:  # noqa: BLE001  # raised where the block ends
            self._error = exc
        self.seconds = time.perf_counter() - start

    def _endless(self) -> Iterator[str]:
        """Yield texts that no window has twice: repeated ones would be computed once."""
        for text in cycle(self.texts):
            if self._over.is_set():
                return
            yield text

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    @property
    def texts_per_s(self) -> float:
        return self.n_texts / self.seconds


def interactive(engine: EmbeddingEngine, texts: list[str], seconds: float) -> list[float]:
    """Embed a text every 50 ms; return the milliseconds each took."""
    taken = []
    begin = time.perf_counter()
    for number in range(max(1, int(seconds / EVERY_S))):
        due = begin + number * EVERY_S
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        engine.embed("m", texts[number % len(texts)])
        taken.append((time.perf_counter() - start) * 1e3)
    return taken


def bulk_alone(
    engine: EmbeddingEngine, results: Results, model: str, texts: list[str], seconds: float
) -> float:
    """Note what bulk does when nobody disturbs it; return the p50 of its micro-batches in ms."""
    engine.load_model(model, name="bulk alone", config=ModelConfig(tuning="off"))
    with Bulk(engine, "bulk alone", texts) as bulk:
        time.sleep(seconds)
    found = engine.stats()["bulk alone"].inference_s
    assert found is not None
    engine.unload_model("bulk alone")
    results.add("bulk alone", bulk.texts_per_s, "texts/s", better="higher")
    results.add("one bulk micro-batch, p50", found.p50 * 1e3, "ms", better="lower")
    results.add("one bulk micro-batch, p95", found.p95 * 1e3, "ms", better="lower")
    return found.p50 * 1e3


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm")
    options_of.add_argument("--bulk", choices=("passages", "short"), default="passages")
    options_of.add_argument("--seconds", type=float, default=10.0)
    options_of.add_argument("--rounds", type=int, default=3)
    options = parsed(options_of)
    results = started("priorities", describe_machine(), options)
    own = short_texts(200, seed=9)
    # more than two of a stream's windows: a text that comes twice in one is computed once
    texts = long_texts(1200) if options.bulk == "passages" else short_texts(20_000)
    found: dict[str, list[float]] = {}
    with EmbeddingEngine() as engine:
        micro_batch_ms = bulk_alone(engine, results, options.model, texts, options.seconds)
        engine.load_model(options.model, name="m", config=ModelConfig(tuning="off"))
        longest = max(engine.count_tokens("m", text) for text in own)
        interactive(engine, own, 1.0)
        for _ in range(options.rounds):
            idle = interactive(engine, own, options.seconds)
            with Bulk(engine, "m", texts) as bulk:
                time.sleep(1.0)  # until its windows are full
                with recorded() as seen:
                    busy = interactive(engine, own, options.seconds)
            sizes = [one for one in seen if one.batch.n_tokens > longest]
            for name, value in (
                ("idle, p50", np.percentile(idle, 50)),
                ("idle, p95", np.percentile(idle, 95)),
                ("busy, p50", np.percentile(busy, 50)),
                ("busy, p95", np.percentile(busy, 95)),
                ("busy: bulk micro-batch", np.median([one.seconds for one in sizes]) * 1e3),
                ("busy: bulk tokens", np.median([one.batch.n_tokens for one in sizes])),
                ("busy: bulk rate", bulk.texts_per_s),
            ):
                found.setdefault(name, []).append(float(value))
    units = {"busy: bulk tokens": "tokens", "busy: bulk rate": "texts/s"}
    for name, values in found.items():
        better = "higher" if name == "busy: bulk rate" else "lower"
        results.add(name, values, units.get(name, "ms"), better=better)
    idle_p95, busy_p95 = (results.figures[name].median for name in ("idle, p95", "busy, p95"))
    verdict = "holds" if busy_p95 <= idle_p95 + micro_batch_ms else "DOES NOT HOLD"
    print(
        f"p95 busy <= p95 idle + one bulk micro-batch: {busy_p95:.1f} <= {idle_p95:.1f} + "
        f"{micro_batch_ms:.1f} ms {verdict}"
    )
    regressed = finished(results, options)
    return regressed or int(verdict != "holds")


if __name__ == "__main__":
    sys.exit(main())

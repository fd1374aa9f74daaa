"""Single texts, small batches, and a cold start by phase.

    python -m benches.latency [--model minilm] [--rounds 5] [--backend auto]
                               [--json FILE] [--compare old.json]

Each round gives one p50, p95 and p99 of 60 single texts and of 12 batches of 32; each cold start is
a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from benches.machine import describe_machine
from benches.results import Results, finished, parsed, parser, started
from benches.rounds import timed
from embellama import EmbeddingEngine, ModelConfig
from embellama.bench.texts import short_texts

_COLD = """
import json, sys, time
begin = time.perf_counter()
import embellama
imported = time.perf_counter()
engine = embellama.EmbeddingEngine()
made = time.perf_counter()
info = engine.load_model(sys.argv[1], config=embellama.ModelConfig(tuning="off"))
loaded = time.perf_counter()
engine.embed(info.name, "Hello, world!")
first = time.perf_counter()
print(json.dumps({
    "import embellama": imported - begin,
    "make the engine (loads llama.cpp)": made - imported,
    "find the file": loaded - made - info.load_s["total"],
    "read metadata": info.load_s["metadata"],
    "load weights": info.load_s["weights"],
    "tokenizer and workers": info.load_s["tokenizer"],
    "first text (makes the context)": first - loaded,
}))
"""

QUANTILES = (50, 95, 99)


def quantiles_by_round(
    runs: dict[str, tuple[Callable[[], object], int]], rounds: int
) -> dict[str, list[list[float]]]:
    """Return milliseconds: for each thing and each of `QUANTILES` one value a round."""
    found: dict[str, list[list[float]]] = {name: [[] for _ in QUANTILES] for name in runs}
    for _ in range(rounds):
        for name, (run, repeats) in runs.items():
            taken = [timed(run) * 1e3 for _ in range(repeats)]
            for values, value in zip(found[name], np.percentile(taken, QUANTILES), strict=True):
                values.append(float(value))
    return found


def warm(results: Results, model: str, rounds: int) -> None:
    texts = short_texts(32)
    with EmbeddingEngine() as engine:
        engine.load_model(model, name="m", config=ModelConfig(tuning="off"))
        engine.warmup_model("m")
        engine.embed_batch("m", texts)
        runs: dict[str, tuple[Callable[[], object], int]] = {
            "single text": (lambda: engine.embed("m", texts[0]), 60),
            "32 texts": (lambda: engine.embed_batch("m", texts), 12),
        }
        for name, by_quantile in quantiles_by_round(runs, rounds).items():
            for quantile, values in zip(QUANTILES, by_quantile, strict=True):
                results.add(f"{name}, p{quantile}", values, "ms", better="lower")


def cold(results: Results, model: str, rounds: int) -> None:
    phases: dict[str, list[float]] = {}
    for _ in range(rounds):

        def start() -> None:
            done = subprocess.run(
                [sys.executable, "-c", _COLD, model], capture_output=True, text=True, check=True
            )
            for phase, seconds in json.loads(done.stdout).items():
                phases.setdefault(f"    {phase}", []).append(seconds * 1e3)

        phases.setdefault("cold start: process to first vector", []).append(timed(start) * 1e3)
    for phase, values in sorted(phases.items(), key=lambda item: item[0].startswith(" ")):
        results.add(phase, values, "ms", better="lower")


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm")
    options_of.add_argument("--rounds", type=int, default=5)
    options = parsed(options_of)
    results = started("latency", describe_machine(), options)
    warm(results, options.model, options.rounds)
    cold(results, options.model, options.rounds)
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

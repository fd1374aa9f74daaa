"""Single texts, small batches, and a cold start by phase.

python -m benches.latency [--model minilm]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from benches.machine import describe_machine
from benches.texts import short_sentences
from embellama import EmbeddingEngine

_COLD = """
import json, sys, time
begin = time.perf_counter()
import embellama
imported = time.perf_counter()
engine = embellama.EmbeddingEngine()
made = time.perf_counter()
info = engine.load_model(sys.argv[1])
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


def quantiles(run: Callable[[], object], repeats: int) -> str:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append((time.perf_counter() - start) * 1e3)
    p50, p95, p99 = np.percentile(taken, [50, 95, 99])
    return f"p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   p99 {p99:7.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    model = parser.parse_args().model
    print(describe_machine())
    texts = short_sentences(32)
    with EmbeddingEngine() as engine:
        engine.load_model(model, name="m")
        engine.warmup_model("m")
        print("single text ", quantiles(lambda: engine.embed("m", texts[0]), 300))
        print("32 texts    ", quantiles(lambda: engine.embed_batch("m", texts), 60))
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _COLD, model], capture_output=True, text=True, check=True
    )
    total = time.perf_counter() - begin
    print(f"cold start of a process to its first vector: {total * 1e3:.0f} ms")
    for phase, seconds in json.loads(done.stdout).items():
        print(f"    {phase:34} {seconds * 1e3:7.0f} ms")


if __name__ == "__main__":
    main()

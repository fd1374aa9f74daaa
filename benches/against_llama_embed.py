"""embed_batch against llama_cpp.Llama.embed: same file, threads, texts and llama.cpp, in turns.

    python -m benches.against_llama_embed [--model minilm] [--n-texts 2000] [--rounds 3]

Prints texts a second of both, and the ratio of each round. The two take turns, so that a machine
that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from llama_cpp import Llama

from benches.machine import describe_machine
from embellama import EmbeddingEngine, ModelConfig
from embellama._parallel import available_cores
from embellama.bench.texts import short_texts


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--n-texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=available_cores(physical=True))
    parser.add_argument("--texts", type=Path, help="one text a line instead of made-up sentences")
    options = parser.parse_args()
    texts = short_texts(options.n_texts)
    if options.texts:
        texts = options.texts.read_text(encoding="utf-8").splitlines()[: options.n_texts]
    settings = {
        "embellama": ModelConfig(n_threads=options.threads, tuning="off", backend="llama"),
        "embellama, one context": ModelConfig(
            n_threads=options.threads, n_contexts=1, backend="llama"
        ),
    }
    with EmbeddingEngine() as engine:
        for name, config in settings.items():
            info = engine.load_model(options.model, name=name, config=config)
        peer = Llama(
            str(info.path),
            embedding=True,
            n_ctx=info.n_ctx,
            n_batch=info.n_ctx,
            n_threads=options.threads,
            n_threads_batch=options.threads,
            verbose=False,
        )
        runs: dict[str, Callable[[], object]] = {"Llama.embed": lambda: peer.embed(texts)}
        for name in settings:
            runs[name] = lambda name=name: engine.embed_batch(name, texts)
        ours = engine.embed_batch("embellama", texts[:64])
        theirs = np.array(peer.embed(texts[:64], normalize=True), dtype=np.float32)
        print(describe_machine())
        print(
            f"{info.path.name}, {len(texts)} texts, {options.threads} threads; "
            f"worst cosine between the two: {(ours * theirs).sum(axis=1).min():.6f}"
        )
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                seconds[name].append(timed(run))
        peer.close()
    for name, taken in seconds.items():
        ratios = [slow / own for slow, own in zip(seconds["Llama.embed"], taken, strict=True)]
        rounds = " ".join(f"{ratio:.2f}" for ratio in ratios)
        rate = len(texts) / statistics.median(taken)
        print(f"{name:34} {rate:7.0f} texts/s   ratio {statistics.median(ratios):.2f} ({rounds})")


if __name__ == "__main__":
    main()

"""Sixteen threads on one engine: embed, embed_batch, load and unload, every vector checked.

    python -m tests.integration.hammer SECONDS MODEL.gguf

Prints calls, wrong vectors, unexpected errors, and the resident memory before and after.
"""

import gc
import json
import random
import sys
import threading
import time
from collections import Counter

import numpy as np
import psutil

from embellama import EmbeddingEngine, ModelConfig, ModelNotFoundError
from tests.reference_texts import SENTENCES

N_THREADS = 16
TEXTS = SENTENCES[:60]
TOLERANCE = 5e-4
# the native kernels have a hammer of their own
CONFIG = ModelConfig(n_threads=1, n_contexts=2, backend="llama")
TRANSIENT = ("extra-0", "extra-1")


class Hammer:
    """What the threads share."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.engine = EmbeddingEngine()
        self.engine.load_model(path, name="steady", config=CONFIG)
        self.expected = np.stack([self.engine.embed("steady", text) for text in TEXTS])
        self.calls: Counter[str] = Counter()
        self.wrong = 0
        self.errors: list[str] = []

    def check(self, indices: list[int], vectors: np.ndarray) -> None:
        if np.abs(vectors - self.expected[indices]).max() > TOLERANCE:
            self.wrong += 1

    def one_step(self, chooser: random.Random) -> None:
        verb = chooser.choices(["embed", "batch", "load", "unload"], [60, 30, 5, 5])[0]
        self.calls[verb] += 1
        name = chooser.choice(("steady", "steady", *TRANSIENT))
        try:
            if verb == "embed":
                index = chooser.randrange(len(TEXTS))
                self.check([index], self.engine.embed(name, TEXTS[index]))
            elif verb == "batch":
                indices = chooser.choices(range(len(TEXTS)), k=chooser.randint(1, 40))
                self.check(indices, self.engine.embed_batch(name, [TEXTS[i] for i in indices]))
            elif verb == "load":
                self.engine.load_model(self.path, name=chooser.choice(TRANSIENT), config=CONFIG)
            else:
                self.engine.unload_model(chooser.choice(TRANSIENT))
        except ModelNotFoundError:
            self.calls["not loaded"] += 1  # another thread unloaded it: the one error expected

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds

        def work(seed: int) -> None:
            chooser = random.Random(seed)
            while time.monotonic() < end:
                try:
                    self.one_step(chooser)
                except Exception as exc:  # noqa: BLE001  # reported: none is expected
                    self.errors.append(repr(exc))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(N_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in TRANSIENT:
            if self.engine.is_loaded(name):
                self.engine.unload_model(name)
        gc.collect()


def main(seconds: float, path: str) -> None:
    hammer, process = Hammer(path), psutil.Process()
    hammer.run(min(3.0, seconds))  # every kind of call once, so that buffers are there
    before = process.memory_info().rss
    hammer.run(seconds)
    after = process.memory_info().rss
    hammer.engine.close()
    report = {
        "calls": dict(hammer.calls),
        "wrong": hammer.wrong,
        "errors": hammer.errors[:5],
        "rss_before": before,
        "rss_after": after,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])

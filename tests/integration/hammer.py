"""Sixteen threads on one engine: embed, embed_batch, load and unload, every vector checked.

    python -m tests.integration.hammer WARM_UP_S SECONDS MODEL.gguf

Prints calls, wrong vectors, unexpected errors, the bytes that native code holds before and after
(glibc alone can say), and the resident memory after each sixth of the time. The resident memory
swings with where the arenas' free pages lie; what is held shows a leak, however small.
"""

import ctypes
import gc
import json
import os
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
N_SLICES = 6


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


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2, of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def held_bytes() -> int | None:
    """What malloc has given out in all arenas and not got back; None where nothing tells."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None) if os.name == "posix" else None
    if mallinfo is None:
        return None
    mallinfo.restype = _Mallinfo
    told = mallinfo()
    return told.uordblks + told.hblkhd


def main(warm_up_s: float, seconds: float, path: str) -> None:
    hammer, process = Hammer(path), psutil.Process()
    hammer.run(warm_up_s)  # until the arenas have found their size
    before, resident = held_bytes(), []
    for _ in range(N_SLICES):
        hammer.run(seconds / N_SLICES)
        resident.append(process.memory_info().rss)
    after = held_bytes()
    hammer.engine.close()
    report = {
        "calls": dict(hammer.calls),
        "wrong": hammer.wrong,
        "errors": hammer.errors[:5],
        "held_before": before,
        "held_after": after,
        "rss": resident,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3])

"""Many threads on one engine with the native kernels, every vector held against the one alone.

    python -m tests.integration.native_hammer SECONDS WARM_UP_S THREADS COMPUTE_TYPE MODEL.gguf
        TINY.gguf

Single texts, batches, awaited calls, calls cancelled and timed out at any moment, and a tiny second
model that is loaded and unloaded all the while. Writes what happened as JSON.
"""

import asyncio
import gc
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import psutil
from numpy.typing import NDArray

from embellama import EmbeddingEngine, EmbeddingTimeoutError, ModelConfig, ModelNotFoundError
from embellama.bench.texts import long_texts
from tests.reference_texts import SENTENCES

STEADY, FLEETING = "steady", "fleeting"
CONFIG = ModelConfig(backend="native", tuning="off")
TEXTS = {
    STEADY: [*SENTENCES[:60], *long_texts(4)],
    FLEETING: ["a", "ab", "c", "cing", "a c", "é ab c", "c a cing é"],
}
SHORTEST_S, LONGEST_S = 1e-4, 2e-2
"""After which a call is cancelled or times out: before it is queued, or in the middle of it."""

ENDING_S = 10.0
"""How long threads may take to end after close."""

Vectors = NDArray[np.float32]
Step = Callable[[random.Random], None]


class NativeHammer:
    """What the threads share."""

    def __init__(self, config: ModelConfig, path: str, tiny_path: str) -> None:
        self.tiny_path = tiny_path
        self.engine = EmbeddingEngine()
        self.engine.load_model(path, name=STEADY, config=config)
        self.load()
        self.backends = [self.engine.get_model_info(name).backend for name in TEXTS]
        self.expected = {
            name: np.stack([self.engine.embed(name, text) for text in texts])
            for name, texts in TEXTS.items()
        }
        self.calls: Counter[str] = Counter()
        self.n_wrong = 0
        self.largest_difference = 0.0
        self.errors: list[str] = []
        self._counting = threading.Lock()
        self._steps: dict[str, tuple[Step, int]] = {
            "embed": (self.embed, 40),
            "batch": (self.batch, 20),
            "awaited": (self.awaited, 12),
            "cancelled": (self.cancelled, 10),
            "timed out": (self.timed_out, 10),
            "load": (lambda _: self.load(), 4),
            "unload": (lambda _: self.engine.unload_model(FLEETING), 4),
        }

    def load(self) -> None:
        self.engine.load_model(self.tiny_path, name=FLEETING, config=CONFIG)

    def count(self, what: str) -> None:
        with self._counting:
            self.calls[what] += 1

    def check(self, name: str, indices: Sequence[int], vectors: Vectors) -> None:
        """Compare to the last bit: which texts share a micro-batch must not show."""
        expected = self.expected[name][indices]
        if not np.array_equal(vectors, expected):
            difference = float(np.abs(vectors - expected).max())
            with self._counting:
                self.n_wrong += 1
                self.largest_difference = max(self.largest_difference, difference)

    def choose(self, chooser: random.Random, most: int) -> tuple[str, list[int], list[str]]:
        name = chooser.choice((STEADY, STEADY, STEADY, FLEETING))
        texts = TEXTS[name]
        indices = chooser.choices(range(len(texts)), k=chooser.randint(1, most))
        return name, indices, [texts[index] for index in indices]

    def embed(self, chooser: random.Random) -> None:
        name, indices, texts = self.choose(chooser, 1)
        self.check(name, indices, self.engine.embed(name, texts[0])[np.newaxis])

    def batch(self, chooser: random.Random) -> None:
        name, indices, texts = self.choose(chooser, 40)
        self.check(name, indices, self.engine.embed_batch(name, texts))

    def awaited(self, chooser: random.Random) -> None:
        name, indices, texts = self.choose(chooser, 8)

        async def all_at_once() -> Vectors:
            found = await asyncio.gather(
                *(self.engine.aembed(name, text) for text in texts), return_exceptions=True
            )
            for one in found:
                if isinstance(one, BaseException):  # after all of them have ended
                    raise one
            return np.stack(found)

        self.check(name, indices, asyncio.run(all_at_once()))

    def cancelled(self, chooser: random.Random) -> None:
        name, indices, texts = self.choose(chooser, 40)
        delay_s = chooser.uniform(SHORTEST_S, LONGEST_S)

        async def for_a_moment() -> None:
            task = asyncio.ensure_future(self.engine.aembed_batch(name, texts))
            done, _ = await asyncio.wait([task], timeout=delay_s)
            if not done:
                task.cancel()
            try:
                self.check(name, indices, await task)
            except asyncio.CancelledError:
                self.count("given up")

        asyncio.run(for_a_moment())

    def timed_out(self, chooser: random.Random) -> None:
        name, indices, texts = self.choose(chooser, 40)
        timeout_s = chooser.uniform(SHORTEST_S, LONGEST_S)
        try:
            self.check(name, indices, self.engine.embed_batch(name, texts, timeout_s=timeout_s))
        except EmbeddingTimeoutError:
            self.count("over time")

    def work(self, seed: int, end: float) -> None:
        chooser = random.Random(seed)
        names = list(self._steps)
        weights = [weight for _, weight in self._steps.values()]
        while time.monotonic() < end:
            (verb,) = chooser.choices(names, weights)
            step, _ = self._steps[verb]
            try:
                step(chooser)
            except ModelNotFoundError:
                self.count("not loaded")  # the fleeting one: the only error besides those asked for
            except Exception as exc:  # noqa: BLE001  # reported: none is expected
                self.errors.append(f"{verb}: {exc!r}")
            self.count(verb)

    def run(self, seconds: float, n_threads: int, seed: int) -> None:
        end = time.monotonic() + seconds
        threads = [
            threading.Thread(target=self.work, args=(seed + number, end))
            for number in range(n_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()


def used(process: psutil.Process) -> dict[str, int]:
    return {"threads": process.num_threads(), "handles": process.num_fds()}


def settled(process: psutil.Process, at_most: dict[str, int]) -> dict[str, int]:
    """Return threads and handles as soon as there are no more than at first, or later as it is."""
    end = time.monotonic() + ENDING_S
    while True:
        gc.collect()
        now = used(process)
        if time.monotonic() > end or all(now[name] <= at_most[name] for name in now):
            return now
        time.sleep(0.1)


def main(
    seconds: float, warm_up_s: float, n_threads: int, config: ModelConfig, path: str, tiny_path: str
) -> None:
    process = psutil.Process()
    once = NativeHammer(config, path, tiny_path)  # what the process keeps from the first use on
    once.run(0.5, 2, seed=1_000)
    once.engine.close()
    time.sleep(1.0)  # threads that were told to end have ended
    before = used(process)
    hammer = NativeHammer(config, path, tiny_path)
    hammer.run(warm_up_s, n_threads, seed=0)
    rss_before = process.memory_info().rss
    hammer.run(seconds, n_threads, seed=500)
    rss_after = process.memory_info().rss
    hammer.engine.close()
    report = {
        "backends": hammer.backends,
        "calls": dict(hammer.calls),
        "n_wrong": hammer.n_wrong,
        "largest_difference": hammer.largest_difference,
        "errors": hammer.errors[:5],
        "rss_before": rss_before,
        "rss_after": rss_after,
        "before": before,
        "after": settled(process, before),
    }
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    seconds, warm_up_s, n_threads, compute_type, *paths = sys.argv[1:]
    steady = CONFIG.model_copy(update={"compute_type": compute_type})
    main(float(seconds), float(warm_up_s), int(n_threads), steady, *paths)

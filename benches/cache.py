"""A warm cache against computing: same texts, same engine, in turns.

    python -m benches.cache [--model minilm] [--n-texts 2000] [--rounds 3]

Prints, for each kind of cache, texts a second computed, found in a cache that this process filled,
and found in a file by a cache that was just opened; and the ratios within each round. Then what
10,000 entries of 384 components take.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benches.machine import describe_machine
from embellama import EmbeddingEngine, ModelConfig
from embellama._parallel import available_cores
from embellama.bench.texts import long_texts, short_texts
from embellama.cache import EmbeddingCache, cache_keys
from embellama.types import CachedVector

CONFIG = ModelConfig(n_threads=1, n_contexts=available_cores(physical=True))
"""One thread a context computes as fast as any on a busy machine: the ratio is not flattered."""

KINDS = ("in_memory", "on_disk", "tiered")


def timed(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    rows = run()
    return time.perf_counter() - start, rows


def make(kind: str, path: Path) -> EmbeddingCache:
    if kind == "in_memory":
        return EmbeddingCache.in_memory()
    return getattr(EmbeddingCache, kind)(path)


def compare(model: str, kind: str, folder: Path, texts: list[str], rounds: int) -> None:
    ratios: dict[str, list[float]] = {"warm": [], "opened again": []}
    rates: dict[str, list[float]] = {"computed": [], "warm": [], "opened again": []}
    for number in range(rounds):
        path = folder / f"{kind}-{number}-{len(texts)}.db"
        taken: dict[str, float] = {}
        for phases in (("computed", "warm"), ("opened again",)):
            if kind == "in_memory" and phases == ("opened again",):
                continue
            with make(kind, path) as cache, EmbeddingEngine(cache=cache) as engine:
                engine.load_model(model, name="m", config=CONFIG)
                engine.warmup_model("m")
                for phase in phases:
                    taken[phase], rows = timed(lambda: engine.embed_batch("m", texts))
                    rates[phase].append(len(texts) / taken[phase])
                    if phase == "computed":
                        first = rows
                    assert np.array_equal(rows, first), "the cache gave another vector"
        for phase, seconds in taken.items():
            if phase != "computed":
                ratios[phase].append(taken["computed"] / seconds)
    for phase, values in rates.items():
        if values:
            told = " ".join(f"{ratio:.0f}" for ratio in ratios.get(phase, ()))
            print(
                f"  {kind:10} {phase:13} {statistics.median(values):9.0f} texts/s"
                + (f"   {statistics.median(ratios[phase]):5.0f} x ({told})" if told else "")
            )


def sizes(folder: Path, count: int = 10_000, n_embd: int = 384) -> None:
    rows = np.random.default_rng(1).standard_normal((count, n_embd), dtype=np.float32)
    texts = [f"text {number}" for number in range(count)]
    keys = cache_keys(fingerprint="f", prompt="", overflow="error", texts=texts)
    items = [(key, CachedVector(row, 5)) for key, row in zip(keys, rows, strict=True)]
    print(f"{count} entries of {n_embd} components")
    for kind in KINDS:
        path = folder / f"size-{kind}.db"
        with make(kind, path) as cache:
            start = time.perf_counter()
            for at in range(0, count, 512):
                cache.put_many(items[at : at + 512])
            put = time.perf_counter()
            for at in range(0, count, 512):
                assert None not in cache.get_many(keys[at : at + 512])
            got = time.perf_counter()
        on_disk = sum(file.stat().st_size for file in folder.glob(f"{path.name}*"))
        print(
            f"  {kind:10} {on_disk / 1e6:6.1f} MB on disk   put {(put - start) / count * 1e6:5.1f} us"
            f"   got {(got - put) / count * 1e6:5.1f} us an entry"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--n-texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        for title, texts in (
            ("sentences of about 14 tokens", short_texts(options.n_texts)),
            ("passages of about 240 tokens", long_texts(options.n_texts // 10)),
        ):
            print(f"{len(texts)} {title}")
            for kind in KINDS:
                compare(options.model, kind, Path(name), texts, options.rounds)
        sizes(Path(name))


if __name__ == "__main__":
    main()

"""Keep vectors, so that a text is computed once, whoever asks and whenever.

    python examples/caching.py [vectors.db]

The file may be used by several processes at the same time.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from embellama import EmbeddingCache, EmbeddingEngine

TEXTS = [f"Ticket {number}: the parcel to street {number % 97} is late." for number in range(300)]


def run(path: Path, title: str) -> np.ndarray:
    """Embed the texts with an engine and a cache made for it, as a process of its own would."""
    with EmbeddingCache.tiered(path) as cache, EmbeddingEngine(cache=cache) as engine:
        engine.load_model("minilm")
        engine.warmup_model("minilm")
        start = time.perf_counter()
        done = engine.embed_detailed("minilm", TEXTS)
        took_ms = (time.perf_counter() - start) * 1e3
        n_cached = sum(report.cached for report in done.texts)
        print(f"{title:<16} {took_ms:8.1f} ms, {n_cached} of {len(TEXTS)} from the cache")
        # shorter vectors are made from the whole ones: nothing is computed for them either
        short = engine.embed_detailed("minilm", TEXTS, dimensions=64, force_dimensions=True)
        assert short.usage.n_computed_tokens == 0
        # another prompt is another vector, and another key
        asked = engine.embed_detailed("minilm", TEXTS[:1], prompt=f"{title}: ")
        assert not asked.texts[0].cached
        stats = cache.stats()
        print(f"{'':<16} {stats.hits} hits, {stats.misses} misses, {stats.size_bytes / 1e6:.1f} MB")
    return done.vectors


def main(path: Path) -> None:
    first = run(path, "first process")
    second = run(path, "second process")
    print(f"the same to the last bit: {np.array_equal(first, second)}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder) / "vectors.db")

"""Use one engine from many threads, and check that nothing gets mixed up.

python examples/threads.py
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from embellama import EmbeddingEngine

N_THREADS = 16
TEXTS = [f"Request {number}: where is parcel {number * 7919 % 10_007}?" for number in range(320)]


def main() -> None:
    with EmbeddingEngine() as engine, ThreadPoolExecutor(N_THREADS) as pool:
        engine.load_model("minilm")
        # texts of all threads share micro-batches, so that this costs little more than one batch
        expected = engine.embed_batch("minilm", TEXTS)
        start = time.perf_counter()
        vectors = np.stack(list(pool.map(lambda text: engine.embed("minilm", text), TEXTS)))
        elapsed_s = time.perf_counter() - start
    print(f"{len(TEXTS)} texts, one by one, from {N_THREADS} threads in {elapsed_s:.2f} s")
    worst = np.abs(vectors - expected).max()
    print(f"largest difference to one batch: {worst:.1e} in a component")


if __name__ == "__main__":
    main()

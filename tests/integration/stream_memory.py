"""How much resident memory grows while very many texts stream through.

python -m tests.integration.stream_memory N_TEXTS MODEL.gguf
"""

import json
import sys
from collections.abc import Iterator

import psutil

from embellama import EmbeddingEngine, ModelConfig


def texts(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"text {number % 997}"


def main(count: int, path: str) -> None:
    process, peak, n_vectors = psutil.Process(), 0, 0
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="m", config=ModelConfig(n_threads=1, n_contexts=2))
        engine.embed_batch("m", list(texts(2000)))
        before = process.memory_info().rss
        for vector in engine.embed_stream("m", texts(count)):
            n_vectors += vector.shape == (384,)
            if n_vectors % 500 == 0:
                peak = max(peak, process.memory_info().rss)
    print(json.dumps({"n_vectors": n_vectors, "before": before, "growth": peak - before}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

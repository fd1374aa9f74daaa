"""See what a smaller file, or another model, changes on texts of your own.

    python examples/model_comparison.py minilm minilm:Q8_0 lines.txt

Vectors of two models cannot be compared with each other, but what they say about the same texts
can: which texts are near which.
"""

import sys
import time
from pathlib import Path

import numpy as np

from embellama import EmbeddingEngine
from embellama.similarity import pairwise

README = Path(__file__).parents[1] / "README.md"


def lines_of(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return sorted({line for line in lines if sum(map(str.isalpha, line)) > 20})[:200]


def main(references: list[str], path: Path) -> None:
    texts = lines_of(path)
    cosines = []
    with EmbeddingEngine() as engine:
        for reference in references:
            info = engine.load_model(reference, name=reference)
            engine.warmup_model(reference)
            start = time.perf_counter()
            # what is not for search but for likeness gets one role on both sides
            vectors = engine.embed_batch(reference, texts, kind="query", overflow="truncate")
            took_s = time.perf_counter() - start
            rate = len(texts) / took_s
            print(f"{reference:<14} {info.size_bytes / 1e6:6.1f} MB {rate:6.0f} texts/s")
            cosines.append(pairwise(vectors, vectors))
    above = np.triu_indices(len(texts), 1)
    correlation = spearman(*(matrix[above] for matrix in cosines))
    print(f"ranks of {len(above[0])} pairs correlate (Spearman): {correlation:.4f}")
    for matrix in cosines:
        np.fill_diagonal(matrix, -2)
    nearest = [matrix.argmax(axis=1) for matrix in cosines]
    same = nearest[0] == nearest[1]
    print(f"texts with the same nearest neighbour in both: {same.mean():.1%}")
    for index in np.flatnonzero(~same)[:3]:
        print(f"  {texts[index][:60]!r}")
        for reference, others in zip(references, nearest, strict=True):
            print(f"    {reference:<14} {texts[others[index]][:60]!r}")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    ranks = [values.argsort().argsort() for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    given = sys.argv[1:]
    models = given[:2] if len(given) >= 2 else ["minilm", "minilm:Q8_0"]
    main(models, Path(given[2]) if len(given) == 3 else README)

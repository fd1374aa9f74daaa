"""What each precision and each length costs in quality: Spearman on scored sentence pairs.

    python -m benches.precision_quality PAIRS.tsv [--model minilm] [--dimensions 256 128 64]

PAIRS.tsv has a header and the columns score, sentence1, sentence2, as in the STS Benchmark. The
similarity of a pair is the cosine of its two vectors: of what dequantize gives of their codes, and,
in the second table, of the codes as they are (bits 0 and 1), which is what the
EmbeddingSimilarityEvaluator of sentence-transformers does. int8 and uint8 are calibrated on the
set's own vectors of each length, so no value lies outside the ranges.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benches.machine import describe_machine
from embellama import EmbeddingEngine
from embellama.bench.reading import read_pairs
from embellama.bench.scores import spearman
from embellama.precision.calibration import Calibration
from embellama.precision.codes import PRECISIONS, dequantize, quantize, shorten
from embellama.types import FloatArray, Precision

Floats = NDArray[np.float64]


def cosines(a: NDArray[np.generic], b: NDArray[np.generic]) -> Floats:
    first, second = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    # without the last digits: pairs of equal codes must tie, whatever the order of sums
    rounded: Floats = np.round((first * second).sum(axis=1) / lengths, 12)
    return rounded


def as_they_are(codes: NDArray[np.generic], precision: Precision) -> NDArray[np.generic]:
    if precision not in ("binary", "ubinary"):
        return codes
    bits = codes.view(np.uint8)
    return np.unpackbits(bits ^ np.uint8(0x80) if precision == "binary" else bits, axis=1)


def qualities(
    scores: Floats, first: FloatArray, second: FloatArray, precision: Precision
) -> tuple[int, float, float]:
    """Return bytes a vector, and Spearman of dequantized vectors and of bare codes."""
    calibration = Calibration.from_vectors(np.concatenate([first, second]))
    codes = [quantize(rows, precision, calibration) for rows in (first, second)]
    length = first.shape[1]
    back = [dequantize(rows, precision, calibration, dimensions=length) for rows in codes]
    bare = [as_they_are(rows, precision) for rows in codes]
    return codes[0][0].nbytes, spearman(scores, cosines(*back)), spearman(scores, cosines(*bare))


def print_tables(scores: Floats, first: FloatArray, second: FloatArray, lengths: list[int]) -> None:
    found = {
        (precision, length): qualities(
            scores, shorten(first, length), shorten(second, length), precision
        )
        for length in lengths
        for precision in PRECISIONS
    }
    for title, column in (("cosine of dequantized vectors", 1), ("cosine of bare codes", 2)):
        print(f"\nSpearman, {title} (bytes a vector)")
        print("          " + "".join(f"{length:>16}" for length in lengths))
        for precision in PRECISIONS:
            cells = [
                f"{found[precision, length][column]:.4f} ({found[precision, length][0]})"
                for length in lengths
            ]
            print(f"{precision:10}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[256, 128, 64])
    options = parser.parse_args()
    pairs = read_pairs(options.pairs)
    scores = np.array(pairs.scores)
    with EmbeddingEngine() as engine:
        info = engine.load_model(options.model, name="model")
        first = engine.embed_batch("model", pairs.first)
        second = engine.embed_batch("model", pairs.second)
    trained = ", ".join(map(str, info.matryoshka_dims)) or "none"
    print(describe_machine())
    print(
        f"{info.path.name}, {len(scores)} pairs of {options.pairs.name}; shorter lengths it was "
        f"trained for: {trained}; int8 and uint8 calibrated on these vectors"
    )
    print_tables(scores, first, second, [info.n_embd, *options.dimensions])


if __name__ == "__main__":
    main()

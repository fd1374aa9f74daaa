"""Compute the codes that precision's tests compare with; needs sentence-transformers and torch.

    python tests/data/make_precision_reference.py

Writes precision_reference.npz beside this script: 150 random vectors of 64 components, of which the
first 100 are also the calibration, and what sentence-transformers makes of them. Among them are a
row of zeros, constant components, and values outside the calibration's ranges. Made with
sentence-transformers 5.7.0, numpy 2.4.6, torch 2.13.0, float32 on CPU.
"""

from pathlib import Path

import numpy as np
import torch
from sentence_transformers import quantize_embeddings
from sentence_transformers.util import normalize_embeddings, truncate_embeddings

N_CALIBRATION = 100
ODD = 61  # components that 8 does not divide


def make_vectors() -> np.ndarray:
    random = np.random.default_rng(20240611)
    # components differ in size and centre, as those of a real model do
    sizes, centres = random.uniform(0.2, 3, 64), random.normal(0, 0.5, 64)
    vectors = random.normal(centres, sizes, (150, 64))
    vectors[120:] *= 2.5
    vectors[:, 5], vectors[:, 6] = 0.25, 0
    vectors[130] = 0
    return vectors.astype(np.float32)


def shortened(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """Do what ``encode(truncate_dim=dimensions, normalize_embeddings=True)`` does at its end."""
    return normalize_embeddings(truncate_embeddings(torch.from_numpy(vectors), dimensions)).numpy()


if __name__ == "__main__":
    vectors = make_vectors()
    arrays = {"vectors": vectors}
    for precision in ("int8", "uint8"):
        arrays[f"{precision}_own"] = quantize_embeddings(vectors, precision)
        arrays[f"{precision}_first"] = quantize_embeddings(
            vectors, precision, calibration_embeddings=vectors[:N_CALIBRATION]
        )
    for precision in ("binary", "ubinary"):
        arrays[precision] = quantize_embeddings(vectors, precision)
        arrays[f"{precision}_odd"] = quantize_embeddings(vectors[:, :ODD], precision)
    for dimensions in (64, 32, 10, 1):
        arrays[f"shortened_{dimensions}"] = shortened(vectors, dimensions)
    target = Path(__file__).with_name("precision_reference.npz")
    np.savez_compressed(target, **arrays)
    print(f"{len(vectors)} vectors -> {target}, {target.stat().st_size} bytes")

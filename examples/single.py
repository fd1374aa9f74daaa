"""Embed one text and look at what came back.

    python examples/single.py "Hello, world!"

The model is fetched and converted on the first run; later runs need no network.
"""

import sys

import numpy as np

from embellama import EmbeddingEngine


def main(text: str) -> None:
    with EmbeddingEngine() as engine:
        info = engine.load_model("minilm", on_step=print)
        vector = engine.embed("minilm", text)
    print(f"model     {info.name} ({info.file_type}, {info.pooling_type} pooling, {info.device})")
    print(f"limit     {info.n_ctx} tokens for one text")
    print(f"vector    {vector.shape[0]} numbers, length {np.linalg.norm(vector):.6f}")
    print(f"begins    {np.array2string(vector[:4], precision=4)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "Hello, world!")

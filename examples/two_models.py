"""Keep two models in one engine, and compare what they say.

    python examples/two_models.py

The second is the first in 8 bits: half the file, and vectors that point almost the same way.
"""

import numpy as np

from embellama import EmbeddingEngine

TEXTS = ["A cat sleeps.", "Borrowing became expensive.", "Light becomes chemical energy."]


def main() -> None:
    with EmbeddingEngine() as engine:
        vectors = {}
        for name, reference in (("full", "minilm"), ("small", "minilm:Q8_0")):
            info = engine.load_model(reference, name=name)
            vectors[name] = engine.embed_batch(name, TEXTS)
            print(f"{name:<6} {info.file_type:<5} {info.size_bytes / 1e6:5.1f} MB")
        print(f"loaded: {', '.join(engine.list_models())}")
        engine.unload_model("small")
        print(f"after unloading one: {', '.join(engine.list_models())}")
    cosines = np.sum(vectors["full"] * vectors["small"], axis=1)
    print(f"cosines between the two models: {np.array2string(cosines, precision=4)}")


if __name__ == "__main__":
    main()

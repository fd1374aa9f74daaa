"""Embed many texts in one call, and find for each the one nearest in meaning.

python examples/batch.py
"""

import numpy as np

from embellama import EmbeddingEngine, EmptyInputError

TEXTS = [
    "A cat sleeps on the windowsill.",
    "The bank raised its interest rate.",
    "How do I install this program?",
    "A kitten naps by the window.",
    "Setting the software up for the first time",
    "Borrowing money became more expensive.",
]


def main() -> None:
    with EmbeddingEngine() as engine:
        engine.load_model("minilm")
        vectors = engine.embed_batch("minilm", TEXTS)
        refused = refused_positions(engine)

    print(f"{vectors.shape[0]} texts, {vectors.shape[1]} dimensions, {vectors.dtype}")
    # the vectors have length 1, so that their products are cosines
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    for text, nearest, cosine in zip(TEXTS, cosines.argmax(1), cosines.max(1), strict=True):
        print(f"{cosine:.2f}  {text}  →  {TEXTS[nearest]}")
    print(f"refused before any inference: texts {refused}")


def refused_positions(engine: EmbeddingEngine) -> list[int]:
    """Show that one call names every text that cannot be embedded."""
    try:
        engine.embed_batch("minilm", ["fine", "", "fine too", "   "])
    except EmptyInputError as error:
        return list(error.indices)
    return []


if __name__ == "__main__":
    main()

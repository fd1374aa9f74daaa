"""Find the lines of a file nearest to a question, without holding the file or its vectors.

    python examples/stream_file.py README.md "How do I install it?"

`embed_stream` reads the lines as it needs them, so that the file may be larger than the memory.
"""

import heapq
import sys
from collections.abc import Iterator
from pathlib import Path

from embellama import EmbeddingEngine

README = Path(__file__).parents[1] / "README.md"


def lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if any(char.isalnum() for char in line):
                yield line.strip()


def main(path: Path, question: str) -> None:
    with EmbeddingEngine() as engine:
        engine.load_model("minilm")
        wanted = engine.embed("minilm", question)
        vectors = engine.embed_stream("minilm", lines_of(path))
        # the file is read a second time for the texts: nothing has to be remembered
        scored = (
            (float(wanted @ vector), line)
            for vector, line in zip(vectors, lines_of(path), strict=True)
        )
        nearest = heapq.nlargest(3, scored)
    print(f"{path.name}: {question}")
    for cosine, line in nearest:
        print(f"{cosine:.2f}  {line[:90]}")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else README,
        sys.argv[2] if len(sys.argv) > 2 else "How do I install it?",
    )

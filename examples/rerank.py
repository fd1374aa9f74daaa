"""Find candidates with vectors, then let a cross-encoder read each of them with the question.

    python examples/rerank.py ms-marco-minilm-l6-v2

The argument is a cross-encoder: the path of a GGUF, or a name. The one above is in the catalogue
and is fetched from the hub; bge-reranker-v2-m3 is larger and knows many languages.
"""

import sys

from embellama import EmbeddingEngine
from embellama.similarity import top_k

QUESTION = "what does a panda eat?"
DOCUMENTS = [
    "In China the panda eats bamboo.",
    "The panda is a bear.",
    "A cat eats fish.",
    "How to eat a panda cookie.",
    "Bamboo is a grass.",
    "The bank raised its rate.",
    "Pandas live on shoots and leaves.",
]
N_CANDIDATES = 5


def main(reranker: str) -> None:
    with EmbeddingEngine() as engine:
        engine.load_model("minilm", name="finder")
        engine.load_model(reranker, name="judge", on_step=print)
        documents = engine.embed_documents("finder", DOCUMENTS)
        found, cosines = top_k(engine.embed_query("finder", QUESTION), documents, N_CANDIDATES)
        candidates = [DOCUMENTS[index] for index in found]
        # the judge is slow, so that it sees only the candidates
        judged = engine.rerank("judge", QUESTION, candidates, top_n=3, overflow="truncate")
    print(QUESTION)
    for cosine, candidate in zip(cosines, candidates, strict=True):
        print(f"  cosine {cosine:.2f}  {candidate}")
    for place, result in enumerate(judged, start=1):
        cut = f"  ({result.n_dropped} tokens cut)" if result.n_dropped else ""
        print(f"{place}. score {result.score:.2f}  {result.document}{cut}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

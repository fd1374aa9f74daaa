"""Embed what is longer than the model's limit, and know what became of it.

python examples/long_documents.py
"""

from embellama import EmbeddingEngine, InputTooLongError
from embellama.similarity import one_to_many

SECTIONS = {
    "installing": "Installing needs a compiler and Python. Download the package and build it. ",
    "feeding": "The cat eats twice a day. Give it meat in the morning and dry food at night. ",
    "paying": "Invoices are due within thirty days. The bank charges interest after that. ",
}
LONG = "".join(text * 20 for text in SECTIONS.values())
CHUNKS = [text * 5 for text in SECTIONS.values()]
QUESTION = "When do I have to pay the bill?"


def main() -> None:
    with EmbeddingEngine() as engine:
        engine.load_model("minilm")
        try:
            engine.embed("minilm", LONG)
        except InputTooLongError as error:
            print(f"error     {error.n_tokens[0]} tokens, the limit is {error.limit}")
        wanted = engine.embed("minilm", QUESTION)

        for side in ("right", "left"):
            cut = engine.embed_detailed("minilm", [LONG], overflow="truncate", truncate_side=side)
            (report,) = cut.texts
            cosine = float(cut.vectors[0] @ wanted)
            lost = f"{report.n_dropped} of {report.n_tokens} tokens dropped on the {side}"
            print(f"truncate  {lost}: cosine {cosine:.2f}")

        whole = engine.embed_detailed("minilm", [LONG], overflow="window")
        (report,) = whole.texts
        cosine = float(whole.vectors[0] @ wanted)
        print(f"window    {report.n_windows} windows, nothing dropped: cosine {cosine:.2f}")

        # one vector a chunk: each alone, and in one pass in which all know of each other; for the
        # latter the chunks have to fit into the limit together
        alone = one_to_many(wanted, engine.embed_batch("minilm", CHUNKS))
        late = one_to_many(wanted, engine.embed_late("minilm", CHUNKS))
    for name, first, second in zip(SECTIONS, alone, late, strict=True):
        print(f"chunk     {name:<11} alone {first:.2f}, in its context {second:.2f}")


if __name__ == "__main__":
    main()

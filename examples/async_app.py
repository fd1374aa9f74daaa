"""A program with an event loop: texts of concurrent tasks share micro-batches.

python examples/async_app.py
"""

import asyncio

import numpy as np

from embellama import EmbeddingEngine, EmbeddingTimeoutError

TEXTS = ["A cat sleeps.", "A kitten naps.", "Rates rose.", "The bank raised its rate."]


async def main() -> None:
    with EmbeddingEngine() as engine:
        await asyncio.to_thread(engine.load_model, "minilm")

        # one task a text, as a server has them
        vectors = np.stack(await asyncio.gather(*(engine.aembed("minilm", text) for text in TEXTS)))
        print((vectors @ vectors.T).round(2))

        # many texts in one call, behind everything that somebody waits for
        corpus = [f"Sentence {number} of a corpus." for number in range(500)]
        indexing = asyncio.create_task(engine.aembed_batch("minilm", corpus))
        query = await engine.aembed("minilm", "How are interest rates?", timeout_s=30)
        print("nearest:", TEXTS[int(np.argmax(vectors @ query))])
        print("indexed:", (await indexing).shape)

        try:
            await engine.aembed_batch("minilm", corpus, timeout_s=0.01)
        except EmbeddingTimeoutError as error:
            print(error.code, error.retryable)


if __name__ == "__main__":
    asyncio.run(main())

"""How speed grows with the length of texts, their number in a call, callers, contexts and threads.

    python -m benches.scaling [--model minilm] [--parts length,batch,callers,layout] [--rounds 3]
                              [--tokens 30000] [--backend auto] [--json FILE] [--compare old.json]

Within each part all settings take turns, round by round. --tokens is about how much text one turn
computes: a few seconds of work on a few cores. The first three parts run with the model's defaults;
the last sets contexts × threads.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benches.machine import describe_machine
from benches.results import Results, finished, parsed, parser, started
from benches.rounds import interleaved
from embellama import EmbeddingEngine, ModelConfig
from embellama._parallel import available_cores
from embellama.bench.texts import long_texts, short_texts

LENGTHS = (8, 16, 32, 64, 128, 256, 480)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
PARTS = ("length", "batch", "callers", "layout")
SHORT_TOKENS, PASSAGE_TOKENS = 15, 240

_WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work government number night point
home water room mother area money story fact month lot right study book
"""
"""One token each in the vocabularies of most models."""


def texts_of(n_tokens: int, count: int) -> list[str]:
    """Return texts of about so many tokens, special ones included, of which no two are the same."""
    chooser, words = random.Random(n_tokens), _WORDS.split()
    return [
        " ".join(chooser.choice(words) for _ in range(max(n_tokens - 2, 1))) for _ in range(count)
    ]


def add_rates(
    results: Results,
    counts: dict[str, tuple[int, int | None]],
    seconds: dict[str, list[float]],
) -> None:
    """Note texts a second, and tokens where they were counted.

    Args:
        results: Where they go.
        counts: Texts and tokens of one turn, by name.
        seconds: What each turn took.
    """
    for name, taken in seconds.items():
        n_texts, n_tokens = counts[name]
        results.add(name, [n_texts / s for s in taken], "texts/s", better="higher")
        if n_tokens is not None:
            rates = [n_tokens / s for s in taken]
            results.add(f"{name}, tokens", rates, "tokens/s", better="higher")


def by_length(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    runs: dict[str, Callable[[], object]] = {}
    counts: dict[str, tuple[int, int | None]] = {}
    for length in LENGTHS:
        texts = texts_of(length, max(4, options.tokens // length))
        usage = engine.embed_detailed("m", texts, overflow="truncate").usage
        name = f"texts of {usage.n_tokens / len(texts):.0f} tokens"
        runs[name] = lambda texts=texts: engine.embed_batch("m", texts, overflow="truncate")
        counts[name] = len(texts), usage.n_tokens
    add_rates(results, counts, interleaved(runs, options.rounds))


def by_batch(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    texts = short_texts(max(BATCHES[-1], options.tokens // SHORT_TOKENS))

    def run(size: int) -> None:
        for at in range(0, len(texts), size):
            engine.embed_batch("m", texts[at : at + size])

    runs: dict[str, Callable[[], object]] = {
        f"{size} texts a call": lambda size=size: run(size) for size in BATCHES
    }
    add_rates(results, dict.fromkeys(runs, (len(texts), None)), interleaved(runs, options.rounds))


def embed_each(engine: EmbeddingEngine, texts: list[str], n_callers: int) -> None:
    """Embed texts one by one, from so many threads."""
    with ThreadPoolExecutor(n_callers) as callers:
        shares = [texts[number::n_callers] for number in range(n_callers)]
        # list: an error of a caller is raised here
        list(callers.map(lambda own: [engine.embed("m", text) for text in own], shares))


def by_callers(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    texts = short_texts(max(4 * CALLERS[-1], options.tokens // SHORT_TOKENS))
    batch = "one big batch"
    runs: dict[str, Callable[[], object]] = {batch: lambda: engine.embed_batch("m", texts)}
    for n_callers in CALLERS:
        name = f"{n_callers} callers of single texts"
        runs[name] = lambda n_callers=n_callers: embed_each(engine, texts, n_callers)
    seconds = interleaved(runs, options.rounds)
    add_rates(results, dict.fromkeys(runs, (len(texts), None)), seconds)
    for name in list(runs)[1:]:
        ratios = [big / own for big, own in zip(seconds[batch], seconds[name], strict=True)]
        results.add(f"{name} ÷ big batch", ratios, "x", better="higher")


def layouts() -> list[tuple[int, int]]:
    """Return contexts × threads: powers of two of each, no more threads than cores in all."""
    cores = available_cores(physical=True)
    steps = sorted({cores, *(2**n for n in range(cores.bit_length()) if 2**n <= cores)})
    return [(n, t) for n in steps for t in steps if n * t <= cores]


def by_layout(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    n_short, n_long = options.tokens // SHORT_TOKENS, options.tokens // PASSAGE_TOKENS
    works = {"short": short_texts(n_short), "passages": long_texts(max(n_long, 8))}
    runs: dict[str, Callable[[], object]] = {}
    counts: dict[str, tuple[int, int | None]] = {}
    for n_contexts, n_threads in layouts():
        layout = f"{n_contexts}x{n_threads}"
        config = ModelConfig(n_contexts=n_contexts, n_threads=n_threads, tuning="off")
        engine.load_model(options.model, name=layout, config=config)
        for work, texts in works.items():
            name = f"{layout} contexts x threads, {work}"
            runs[name] = lambda layout=layout, texts=texts: engine.embed_batch(layout, texts)
            counts[name] = len(texts), None
    add_rates(results, counts, interleaved(runs, options.rounds))


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm")
    options_of.add_argument("--parts", default=",".join(PARTS))
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--tokens", type=int, default=30_000)
    options = parsed(options_of)
    results = started("scaling", describe_machine(), options)
    parts = {"length": by_length, "batch": by_batch, "callers": by_callers, "layout": by_layout}
    with EmbeddingEngine() as engine:
        info = engine.load_model(options.model, name="m", config=ModelConfig(tuning="off"))
        print(f"{info.path.name}, {info.n_contexts} contexts by default")
        for part in options.parts.split(","):
            print(f"by {part}:")
            parts[part](engine, results, options)
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

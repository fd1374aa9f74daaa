"""The engine against a bare loop of llama_encode over the same micro-batches.

    python -m benches.overhead [--model minilm] [--layout 2x1] [--single-layout 1x2] [--rounds 21]
                               [--n-short 512] [--only single] [--json FILE] [--compare old.json]

A layout is contexts × threads; the bare loop has as many threads with a context each, of the same
size. What it computes is what the engine was seen to compute: its micro-batches are taken down in
a run that is not timed, and built ahead. So the ratio is what everything around inference costs:
tokenization, planning, queues, checks, normalisation. The two take turns.

Both run on llama.cpp, whatever the configuration says.

Short rounds and many of them: what else the machine does changes from one second to the next.

Told beside it: the share of wall time that the engine's contexts spend inside llama_encode (taken
in turns of their own, since the clock around each call costs a little too), and by the engine's own
timings.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.bare import BareLoop, Prepared, Size
from benches.machine import describe_machine
from benches.recording import Seen, recorded
from benches.results import Results, finished, parser, started
from benches.rounds import interleaved, timed
from benches.works import works
from embellama import EmbeddingEngine, ModelConfig
from embellama._llama import context as context_module
from embellama._parallel import available_cores

Layout = tuple[int, int]
SINGLE_CALLS = 12
SINGLE_WARM = 2
"""Calls of a turn with one text, and how many of them do not count: the threads of the other
side's last call spin for a while. Short turns, and four times as many rounds: the machine drifts
within a second by more than what is looked for."""


def layout(text: str) -> Layout:
    n_contexts, _, n_threads = text.partition("x")
    return int(n_contexts), int(n_threads)


class ClockedEncode:
    """llama_encode with the seconds inside it added up, over all threads."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._encode = context_module.lib.llama_encode

    def __call__(self, handle: Any, batch: Any) -> int:
        start = time.perf_counter()
        status = self._encode(handle, batch)
        spent = time.perf_counter() - start
        with self._lock:
            self.seconds += spent
        return int(status)


def load(engine: EmbeddingEngine, model: str, name: str, at: Layout) -> Any:
    config = ModelConfig(
        n_contexts=at[0], n_threads=at[1], use_gpu=False, tuning="off", backend="llama"
    )
    info = engine.load_model(model, name=name, config=config)
    engine.warmup_model(name)
    return info


def size_for(info: Any, seen: list[Seen], n_threads: int) -> Size:
    """Return the size to which the engine's contexts have grown for these micro-batches."""
    n_tokens = info.config.max_batch_tokens
    while n_tokens < max(one.batch.n_tokens for one in seen):
        n_tokens *= 2
    n_tokens = min(n_tokens, max(info.n_ctx, info.config.max_batch_tokens))
    return Size(n_tokens, info.config.max_batch_requests, n_threads, info.config.flash_attn)


def in_order(seen: list[Seen]) -> list[Prepared]:
    """Build micro-batches ahead, in the order in which they began."""
    return [Prepared(one.batch) for one in sorted(seen, key=lambda one: one.begin_s)]


def check_same(ours: NDArray[Any], bare: NDArray[np.float32]) -> None:
    """Make sure that both computed the same: the rows of one are those of the other, reordered."""
    unit = bare / np.linalg.norm(bare, axis=1, keepdims=True)
    worst = float((ours[:64] @ unit.T).max(axis=1).min())
    if len(ours) != len(bare) or worst < 0.999:
        raise RuntimeError(f"the bare loop computed something else: cosine {worst:.4f}")


def batches_of_engine(
    engine: EmbeddingEngine, results: Results, options: argparse.Namespace
) -> None:
    n_contexts, n_threads = options.layout
    info = load(engine, options.model, "m", options.layout)
    for work, texts in works(options.n_short).items():
        with recorded() as seen:
            rows = engine.embed_batch("m", texts)
        loop = BareLoop(
            str(info.path), n_contexts, size_for(info, seen, n_threads), info.pooling_type
        )
        prepared = in_order(seen)
        check_same(rows, loop.run(prepared))
        taken = interleaved(
            {
                "bare": lambda loop=loop, prepared=prepared: loop.run(prepared),
                "engine": lambda texts=texts: engine.embed_batch("m", texts),
            },
            options.rounds,
        )
        loop.close()
        print(f"{work}: {len(texts)} texts in {len(prepared)} micro-batches")
        for name, seconds in taken.items():
            rates = [len(texts) / s for s in seconds]
            results.add(f"{work}, {name}", rates, "texts/s", better="higher")
        ratios = [b / e for b, e in zip(taken["bare"], taken["engine"], strict=True)]
        results.add(f"{work}, engine ÷ bare", ratios, "x", better="higher")


def shares_inside(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    clock = ClockedEncode()
    encode, context_module.lib.llama_encode = context_module.lib.llama_encode, clock
    try:
        load(engine, options.model, "clocked", options.layout)
        for work, texts in works(options.n_short).items():
            engine.embed_batch("clocked", texts)
            inside, timings = [], []
            for _ in range(min(options.rounds, 5)):
                before = clock.seconds
                done = engine.embed_detailed("clocked", texts).timings
                wall = done.total_s * options.layout[0]
                inside.append(100 * (clock.seconds - before) / wall)
                timings.append(100 * done.inference_s / wall)
            results.add(f"{work}, inside llama_encode", inside, "%", better="higher")
            results.add(f"{work}, inference by timings", timings, "%", better="higher")
    finally:
        context_module.lib.llama_encode = encode


def single(engine: EmbeddingEngine, results: Results, options: argparse.Namespace) -> None:
    info = load(engine, options.model, "one", options.single_layout)
    text = works(1)["short"][0]
    with recorded() as seen:
        row = engine.embed("one", text)
    size = size_for(info, seen, options.single_layout[1])
    loop = BareLoop(str(info.path), 1, size, info.pooling_type)
    prepared = Prepared(seen[0].batch)
    check_same(row[np.newaxis], loop.run_one(prepared))
    p50: dict[str, list[float]] = {"bare": [], "engine": []}
    runs = {"bare": lambda: loop.run_one(prepared), "engine": lambda: engine.embed("one", text)}
    for number in range(4 * options.rounds):
        for name in list(runs)[:: 1 if number % 2 else -1]:
            taken = [timed(runs[name]) * 1e3 for _ in range(SINGLE_CALLS)]
            p50[name].append(statistics.median(taken[SINGLE_WARM:]))
    loop.close()
    for name, values in p50.items():
        results.add(f"single text, {name}, p50", values, "ms", better="lower")
    ratios = [e / b for b, e in zip(p50["bare"], p50["engine"], strict=True)]
    results.add("single text, engine ÷ bare", ratios, "x", better="lower")


def main() -> int:
    cores = available_cores(physical=True)
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm")
    options_of.add_argument("--layout", type=layout, default=(cores, 1))
    options_of.add_argument("--single-layout", type=layout, default=(1, cores))
    options_of.add_argument("--rounds", type=int, default=21)
    options_of.add_argument("--n-short", type=int, default=512)
    options_of.add_argument("--only", choices=("batches", "shares", "single"))
    options = options_of.parse_args()
    parts = {"batches": batches_of_engine, "shares": shares_inside, "single": single}
    results = started("overhead", describe_machine(), options)
    with EmbeddingEngine() as engine:
        for name, part in parts.items():
            if options.only in (None, name):
                part(engine, results, options)
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

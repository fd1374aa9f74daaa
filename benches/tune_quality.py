"""What `embellama tune` chose against the best of an exhaustive search, as ratios in one run.

    python -m benches.tune_quality [--models minilm wide PATH…] [--budget-s 60] [--rounds 15]

Both are about llama.cpp's layouts. "wide" is a BERT of 12 layers, 768 wide, with random weights and a vocabulary of 11 words, written
here in F16. The search goes through a finer grid than tune does: every micro-batch size of
`SIZES`, every number of contexts and threads that the cores allow, also with cores left idle. Each
round measures all of them once, in a new order, the chosen one among them. The best of so many had
luck too, so that it and the chosen one are measured against each other once more: that ratio
decides, and the exit status is 1 where one is below `LEAST`. Last, an engine embeds the same token
ids under both, to see that what tune's own meter finds is what a caller gets.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from benches.machine import describe_machine
from benches.rounds import interleaved
from embellama import EmbeddingEngine
from embellama._llama.model import LlamaBackend
from embellama._parallel import available_cores
from embellama.bench.tune import Place, TuneOptions, tune_model
from embellama.bench.tune_speed import Setting, SpeedMeter, Texts, Variant
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.hub.convert import convert_folder
from embellama.hub.resolve import ResolvedModel, resolve_model
from embellama.tuning import WORKS, Tuning, Work
from embellama.types import Layout
from tests.tiny_bert import write_folder

SIZES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
SLICE_S = 0.1
LEAST = 0.95
"""What the chosen layout has to reach of the best one's speed."""

WIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}


def find_model(name: str, folder: Path) -> ResolvedModel:
    if name != "wide":
        return resolve_model(name)
    source = write_folder(folder / "wide", **WIDE)
    return ResolvedModel(convert_folder(source, folder / "wide.gguf").path, "wide")


def every_layout(work: Work, n_cores: int) -> list[Layout]:
    sizes = (256,) if work == "single" else SIZES
    return [
        Layout(n_contexts, n_threads, size)
        for n_contexts in range(1, 2 if work == "single" else n_cores + 1)
        for n_threads in range(1, n_cores // n_contexts + 1)
        for size in sizes
    ]


def measured(
    meter: SpeedMeter, work: Work, layouts: Sequence[Layout], n_rounds: int
) -> dict[Layout, list[float]]:
    """Return texts/s of each layout by round; contexts are made before the first one."""
    rates: dict[Layout, list[float]] = {layout: [] for layout in layouts}
    for layout in layouts:
        meter.measure(work, Setting(Variant(), layout), 0.0)
    shuffled, chooser = list(layouts), random.Random(0)
    for _ in range(n_rounds):
        chooser.shuffle(shuffled)
        for layout in shuffled:
            rates[layout].append(meter.measure(work, Setting(Variant(), layout), SLICE_S))
    return rates


def distinct(work: Work, layouts: Sequence[Layout], texts: Texts) -> list[Layout]:
    """Leave out layouts that come to the micro-batches of an earlier one."""
    found = {
        (way.n_contexts, way.n_threads, repr(texts.plan(work, way))): way
        for way in [*layouts][::-1]
    }
    return list(found.values())


def engine_ratio(
    resolved: ResolvedModel, texts: Texts, work: Work, ways: tuple[Layout, Layout], n_rounds: int
) -> float:
    """Return the speed of an engine under the first layout over that under the second."""
    chooser = np.random.default_rng(3)
    lengths = texts.lengths(work)[:: 1 if work == "short" else 4]
    ids = [chooser.integers(5, texts.n_vocab, length) for length in lengths]
    with EmbeddingEngine() as engine:
        for name, way in zip(("chosen", "best"), ways, strict=True):
            config = ModelConfig(
                n_contexts=way.n_contexts,
                n_threads=way.n_threads,
                max_batch_tokens=way.max_batch_tokens,
                tuning="off",
                backend="llama",
            )
            engine.load_model(resolved.path, name=name, config=config)
        taken = interleaved(
            {
                name: lambda name=name: (
                    engine.embed(name, ids[0])
                    if work == "single"
                    else engine.embed_batch(name, ids)
                )
                for name in ("chosen", "best")
            },
            n_rounds,
        )
    return statistics.median(b / c for c, b in zip(taken["chosen"], taken["best"], strict=True))


def compare(resolved: ResolvedModel, tuning: Tuning, n_cores: int, n_rounds: int) -> float:
    """Print the comparison of each work; return the worst ratio of the chosen one to the best."""
    metadata = read_metadata(resolved.path)
    config = ModelConfig(backend="llama")
    model = LlamaBackend().load(metadata, config, metadata.pooling_type or "mean")
    texts = Texts(model.info.n_vocab, metadata.n_ctx_train, config.max_batch_requests)
    room = psutil.virtual_memory().available // 2
    meter = SpeedMeter(lambda _: model, texts, allowed_bytes=room)
    ratios = []
    for work in WORKS:
        chosen = getattr(tuning.layouts, work)
        ways = distinct(work, [chosen, *every_layout(work, n_cores)], texts)
        rates = {
            way: statistics.median(found)
            for way, found in measured(meter, work, ways, n_rounds).items()
        }
        best = max(rates, key=lambda way: rates[way])
        duel = measured(meter, work, [chosen, best], 2 * n_rounds)
        ratios.append(
            statistics.median(a / b for a, b in zip(duel[chosen], duel[best], strict=True))
        )
        meter.close()
        by_engine = engine_ratio(resolved, texts, work, (chosen, best), n_rounds)
        gain = tuning.measured[work].gain
        print(f"  {work:7} chosen {told(chosen)}: {rates[chosen]:.1f} texts/s")
        print(f"          best of {len(ways)}: {told(best)}: {rates[best]:.1f} texts/s")
        print(f"          in the search {rates[chosen] / rates[best]:.3f} of the best")
        print(f"          once more     {ratios[-1]:.3f}, by an engine {by_engine:.3f}")
        print(f"          gain over the default, as tune told it: {gain:.3f}")
    model.close()
    return min(ratios)


def told(way: Layout) -> str:
    return f"{way.n_contexts}x{way.n_threads} {way.max_batch_tokens} tokens"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["minilm", "wide"])
    parser.add_argument("--budget-s", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    print(describe_machine())
    n_cores = available_cores(physical=True)
    found_worst = []
    with tempfile.TemporaryDirectory() as name:
        for model in given.models:
            resolved = find_model(model, Path(name))
            findings = tune_model(
                resolved,
                ModelConfig(backend="llama"),
                TuneOptions(given.budget_s),
                backend=LlamaBackend(),
                place=Place(Path(name) / "cache"),
            )
            spent = f"{findings.found.spent_s:.1f} s of {given.budget_s:g}"
            print(f"{model}:{findings.file_type}, tuned in {spent}")
            worst = compare(resolved, findings.tuning, n_cores, given.rounds)
            found_worst.append(worst)
            print(f"  worst ratio {worst:.3f}: {'holds' if worst >= LEAST else 'BELOW'} {LEAST}")
    return 0 if min(found_worst) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())

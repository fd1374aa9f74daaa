"""The native kernels against llama.cpp on BERT shapes with random weights, as ratios in one run.

    python -m benches.native [--sizes 22M,33M,109M,335M] [--lengths 14,66,243] [--threads 1,2]
                             [--type BF16] [--rounds 3] [--round-s 0.5]
                             [--json FILE] [--compare old.json]

A size is the parameters of a model of that shape with a vocabulary of 30,522 words; here it has a
few words, which take no time. The weights are random: speed does not depend on them. Each backend
has as many contexts as threads, each on its thread; all compute a micro-batch of texts of one
length again and again, and the two backends take turns.

GFLOP/s are told of what a forward pass has to compute, a multiplication and an addition being two:
for each token, 2 × the weights of the layers' matrices, and 4 × n_embd × length for each layer's
attention (the products with the keys and with the values). Embedding rows, norms, biases, softmax
and GELU are not counted.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from benches.machine import describe_machine
from benches.results import Results, finished, parser, started
from benches.rounds import interleaved, timed
from embellama.backends import ChosenBackend
from embellama.config import MAX_THREADS, ModelConfig
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.convert import convert_folder
from embellama.types import BackendContext, BackendModel, ContextOptions, MicroBatch
from tests.tiny_bert import write_folder

N_POSITIONS = 512
MAX_BATCH_TOKENS, MAX_BATCH_REQUESTS = 256, 64
"""As in `ModelConfig`."""

BACKENDS: tuple[Literal["llama", "native"], ...] = ("llama", "native")


@dataclass(frozen=True)
class Shape:
    """The widths of an encoder."""

    n_layers: int
    n_embd: int
    n_heads: int

    @property
    def n_ff(self) -> int:
        return 4 * self.n_embd

    def flops(self, length: int) -> int:
        """Return the operations that one text of so many tokens takes."""
        weights = 4 * self.n_embd**2 + 2 * self.n_embd * self.n_ff
        return length * self.n_layers * (2 * weights + 4 * self.n_embd * length)


SHAPES = {
    "22M": Shape(6, 384, 12),
    "33M": Shape(12, 384, 12),
    "109M": Shape(12, 768, 12),
    "335M": Shape(24, 1024, 16),
}
"""all-MiniLM-L6-v2, bge-small, bge-base and bge-large. Source: their config.json."""


def write_model(shape: Shape, file_type: str, folder: Path) -> GGUFMetadata:
    source = write_folder(
        folder / "source",
        hidden_size=shape.n_embd,
        intermediate_size=shape.n_ff,
        max_position_embeddings=N_POSITIONS,
        num_attention_heads=shape.n_heads,
        num_hidden_layers=shape.n_layers,
    )
    made = convert_folder(source, folder / "model.gguf", file_type=file_type)
    (source / "model.safetensors").unlink()
    gc.collect()  # the largest shape's weights were in memory more than once
    return read_metadata(made.path)


@contextmanager
def both_backends(metadata: GGUFMetadata) -> Iterator[dict[str, BackendModel]]:
    """Load a model on each backend.

    Raises:
        ConfigurationError: This machine has no native kernels.
    """
    models: dict[str, BackendModel] = {}
    try:
        for backend in BACKENDS:
            config = ModelConfig(backend=backend, use_gpu=False)
            models[backend] = ChosenBackend().load(metadata, config, "mean")
        yield models
    finally:
        for model in models.values():
            model.close()


def batch_of(length: int, n_vocab: int) -> MicroBatch:
    """Make a micro-batch of texts of one length, as many as the default size takes."""
    n_texts = max(1, min(MAX_BATCH_TOKENS // length, MAX_BATCH_REQUESTS))
    generator = np.random.default_rng(length)
    ids = generator.integers(0, n_vocab, (n_texts, length), dtype=np.int32)
    return MicroBatch.pack(list(ids))


class Lanes:
    """Contexts of a model, each on the thread that owns it, going over one micro-batch."""

    def __init__(self, model: BackendModel, batch: MicroBatch, n_threads: int) -> None:
        self._batch = batch
        self._threads = [ThreadPoolExecutor(1) for _ in range(n_threads)]
        options = ContextOptions(max(batch.n_tokens, MAX_BATCH_TOKENS), batch.n_sequences, 1)
        self._contexts = [
            thread.submit(model.create_context, options).result() for thread in self._threads
        ]

    def run(self, n_passes: int) -> None:
        """Compute the micro-batch so many times on every thread."""
        running = [
            thread.submit(self._pass, context, n_passes)
            for thread, context in zip(self._threads, self._contexts, strict=True)
        ]
        for one in running:
            one.result()

    def _pass(self, context: BackendContext, n_passes: int) -> None:
        for _ in range(n_passes):
            context.run(self._batch)

    def close(self) -> None:
        for thread, context in zip(self._threads, self._contexts, strict=True):
            thread.submit(context.close).result()
            thread.shutdown()


def measured(
    models: dict[str, BackendModel], batch: MicroBatch, n_threads: int, given: argparse.Namespace
) -> tuple[int, dict[str, list[float]]]:
    """Return how often each thread computed the micro-batch, and the seconds by backend."""
    lanes: dict[str, Lanes] = {}
    try:
        for name, model in models.items():
            lanes[name] = Lanes(model, batch, n_threads)
        slowest = max(timed(partial(one.run, 2)) / 2 for one in lanes.values())
        n_passes = max(1, round(given.round_s / slowest))
        runs: dict[str, Callable[[], object]] = {
            name: partial(one.run, n_passes) for name, one in lanes.items()
        }
        return n_passes, interleaved(runs, given.rounds)
    finally:
        for one in lanes.values():
            one.close()


def compare_backends(
    results: Results, models: dict[str, BackendModel], size: str, given: argparse.Namespace
) -> None:
    """Measure a size with each length and number of threads."""
    for length in given.lengths:
        batch = batch_of(length, models["llama"].info.n_vocab)
        for n_threads in given.threads:
            n_passes, taken = measured(models, batch, n_threads, given)
            n_texts = n_passes * n_threads * batch.n_sequences
            title = f"{size}, {length} tokens, {n_threads} thr."
            flops = n_texts * SHAPES[size].flops(length)
            for name, seconds in taken.items():
                rates = [n_texts / s for s in seconds]
                results.add(f"{title}, {name}", rates, "texts/s", better="higher")
                gigas = [flops / s / 1e9 for s in seconds]
                results.add(f"{title}, {name}, computed", gigas, "GFLOP/s", better="higher")
            ratios = [b / a for a, b in zip(taken["native"], taken["llama"], strict=True)]
            results.add(f"{title}, native ÷ llama", ratios, "x", better="higher")


def sizes(text: str) -> list[str]:
    named = text.replace(" ", "").split(",")
    unknown = [name for name in named if name not in SHAPES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no size {unknown[0]!r}; there are {', '.join(SHAPES)}")
    return named


def numbers(largest: int) -> Callable[[str], list[int]]:
    """Return what reads numbers from 1 to a largest one, parted by commas."""

    def read(text: str) -> list[int]:
        found = [int(part) for part in text.split(",")]
        if not all(1 <= number <= largest for number in found):
            raise argparse.ArgumentTypeError(f"{text!r} is not all of 1 to {largest}")
        return found

    return read


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--sizes", type=sizes, default=list(SHAPES))
    options.add_argument("--lengths", type=numbers(N_POSITIONS), default=[14, 66, 243])
    options.add_argument("--threads", type=numbers(MAX_THREADS), default=[1, 2])
    options.add_argument("--type", choices=("F32", "F16", "BF16", "Q8_0"), default="BF16")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--round-s", type=float, default=0.5, help="seconds of the slower one")
    given = options.parse_args()
    results = started("native", describe_machine(), given)
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            metadata = write_model(SHAPES[size], given.type, Path(folder))
            with both_backends(metadata) as models:
                print(f"{size}: {given.type}, {models['native'].info.backend}", flush=True)
                compare_backends(results, models, size, given)
    return finished(results, given)


if __name__ == "__main__":
    sys.exit(main())

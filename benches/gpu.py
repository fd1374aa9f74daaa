"""Texts a second with none, half and all of a model's layers on a GPU.

    python -m benches.gpu [--model minilm] [--rounds 3] [--main-gpu 0] [--json FILE]
                          [--compare old.json]

Without a GPU that this build of llama.cpp can use it says so, and ends with status 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np

from benches.machine import describe_machine
from benches.results import finished, parser, started
from benches.rounds import interleaved
from benches.works import works
from embellama import EmbeddingEngine, ModelConfig
from embellama._llama.devices import gpus_among, list_devices
from embellama.cli.info import where_it_runs

MICRO_BATCHES = (256, 2048, 8192)
"""On a GPU a call has a price of its own, so larger ones may pay."""


def settings(n_layers: int, main_gpu: int | None) -> dict[str, ModelConfig]:
    """Return what is compared, by name."""
    made = {"CPU": ModelConfig(use_gpu=False, tuning="off", backend="llama")}
    for n_gpu_layers in sorted({n_layers // 2, n_layers} - {0}):
        for max_batch_tokens in MICRO_BATCHES:
            name = f"{n_gpu_layers} of {n_layers} layers, micro-batches of {max_batch_tokens}"
            made[name] = ModelConfig(
                n_gpu_layers=n_gpu_layers,
                main_gpu=main_gpu,
                max_batch_tokens=max_batch_tokens,
                max_batch_requests=256,
                tuning="off",
            )
    return made


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm")
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--n-texts", type=int, default=4096)
    options_of.add_argument("--main-gpu", type=int)
    options = options_of.parse_args()
    gpus = gpus_among(list_devices())
    if not gpus:
        print("this build of llama.cpp sees no GPU: nothing to measure. See docs/gpu.md")
        return 0
    results = started("gpu", describe_machine(), options)
    print(", ".join(gpu.label for gpu in gpus))
    with EmbeddingEngine() as engine:
        n_layers = engine.load_model(options.model, name="all").n_layers_offloadable
        engine.unload_model("all")
        compared = settings(n_layers, options.main_gpu)
        texts_by_work = works(options.n_texts)
        sample = texts_by_work["mixed"][:64]
        reference = None
        for name, config in compared.items():
            info = engine.load_model(options.model, name=name, config=config)
            rows = engine.embed_batch(name, sample)
            reference = rows if reference is None else reference
            cosine = float(np.min((rows * reference).sum(axis=1)))
            print(f"{name}: {where_it_runs(info)}; worst cosine to the CPU {cosine:.6f}")
        for work, texts in texts_by_work.items():
            runs: dict[str, Callable[[], object]] = {
                name: lambda name=name, texts=texts: engine.embed_batch(name, texts)
                for name in compared
            }
            for name, taken in interleaved(runs, options.rounds).items():
                rates = [len(texts) / seconds for seconds in taken]
                results.add(f"{work}, {name}", rates, "texts/s", better="higher")
        for name in compared:
            taken = interleaved({name: lambda name=name: engine.embed(name, sample[0])}, 50)[name]
            results.add(f"single text, {name}", [s * 1e3 for s in taken], "ms", better="lower")
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

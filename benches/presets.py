"""Each preset against the defaults at what it is for, as ratios in one run.

python -m benches.presets [--model minilm] [--rounds 7]

Wall-clock times mean little while other programs use the cores; the processor's time for long
batches, printed beside them, says what a quiet machine would gain.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import numpy as np

from benches.machine import describe_machine
from embellama import EmbeddingEngine
from embellama.bench.texts import long_texts, short_texts
from embellama.presets.engine_config import EngineConfig

_RESIDENT = """
import sys
import psutil
from embellama.bench.texts import short_texts
from embellama import EmbeddingEngine, ModelConfig
from embellama.presets.engine_config import EngineConfig

config = (
    EngineConfig.low_memory(model=sys.argv[1])
    if sys.argv[2] == "low_memory"
    else EngineConfig(models=(ModelConfig(model_path=sys.argv[1]),))
)
with EmbeddingEngine(config) as engine:
    engine.embed_batch(None, short_texts(1000))
    print(psutil.Process().memory_info().rss)
"""


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def both_clocks(run: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock seconds and the processor's, of all threads."""
    start, cpu_start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start, time.process_time() - cpu_start


def ratios(default: list[tuple[float, float]], preset: list[tuple[float, float]]) -> str:
    """Say how many times the default's time is the preset's, and how far that scattered."""
    found = np.array(default) / np.array(preset)
    wall, cpu = np.median(found, axis=0)
    said = f"{wall:5.2f} (from {found[:, 0].min():.2f} to {found[:, 0].max():.2f})"
    return said if np.isnan(cpu) else f"{said}, processor's time {cpu:.2f}"


def short_text_beside_passages(engine: EmbeddingEngine, short: str, long: list[str]) -> float:
    """Return the median time of a short text while another caller embeds passages one by one."""
    stop = threading.Event()

    def other_caller() -> None:
        for at in range(10**6):
            if stop.is_set():
                return
            engine.embed(None, long[at % len(long)])

    thread = threading.Thread(target=other_caller)
    thread.start()
    time.sleep(0.02)
    taken = [seconds(lambda: engine.embed(None, short)) for _ in range(10)]
    stop.set()
    thread.join()
    return float(np.median(taken))


def resident(model: str, preset: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _RESIDENT, model, preset],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(describe_machine())
    short, long = short_texts(256), long_texts(16)
    work: dict[str, Callable[[EmbeddingEngine], tuple[float, float]]] = {
        "256 short sentences": lambda e: both_clocks(lambda: e.embed_batch(None, short)),
        "16 passages": lambda e: both_clocks(lambda: e.embed_batch(None, long)),
        "short texts, one by one": lambda e: both_clocks(
            lambda: [e.embed(None, text) for text in short[:10]]
        ),
        "passages, one by one": lambda e: both_clocks(
            lambda: [e.embed(None, text) for text in long[:3]]
        ),
        "a short text beside passages": lambda e: (
            short_text_beside_passages(e, short[0], long),
            float("nan"),  # two callers' work, of no fixed amount
        ),
    }
    engines = {
        "default": EmbeddingEngine(EngineConfig(model_path=given.model)),
        "high_throughput": EmbeddingEngine(EngineConfig.high_throughput(model=given.model)),
        "low_latency": EmbeddingEngine(EngineConfig.low_latency(model=given.model)),
        "low_memory": EmbeddingEngine(EngineConfig.low_memory(model=given.model)),
    }
    for engine in engines.values():
        engine.embed_batch(None, short + long)
    print("times as fast as the defaults, median of the rounds:")
    for name, run in work.items():
        taken: dict[str, list[tuple[float, float]]] = {preset: [] for preset in engines}
        for _ in range(given.rounds):
            for preset, engine in engines.items():
                taken[preset].append(run(engine))
        for preset in list(engines)[1:]:
            print(f"  {name:30} {preset:16} {ratios(taken['default'], taken[preset])}")
    for engine in engines.values():
        engine.close()
    default, low = resident(given.model, "default"), resident(given.model, "low_memory")
    print(
        f"resident after 1,000 short sentences: default {default / 1e6:.0f} MB, low_memory "
        f"{low / 1e6:.0f} MB, {default / low:.2f} times less"
    )


if __name__ == "__main__":
    main()

"""Resident memory: by phase, by micro-batch size, and of a long stream.

    python -m benches.memory [--model minilm:Q8_0] [--backend auto] [--json FILE]
                              [--compare old.json]
    python -m benches.memory --stream 1000000 [--texts FILE] [--backend auto]

Each part is a process of its own. The stream reads one text a line from a file (made up in a
temporary folder unless given), embeds it through embed_stream and throws the vectors away; told is
the peak of resident memory against what it was when the stream began.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benches.machine import describe_machine
from benches.results import Results, finished, parsed, parser, started
from embellama import EmbeddingEngine, ModelConfig
from embellama.bench.texts import long_texts, short_texts

MICRO_BATCHES = (64, 128, 256, 512, 1024, 2048, 4096)
N_LINES = 1_000_000


def resident_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


class Peak:
    """The largest resident memory while a block runs, looked at a hundred times a second."""

    def __enter__(self) -> Peak:
        self.mb = resident_mb()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.mb = max(self.mb, resident_mb())

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()


def phases(model: str) -> Iterator[tuple[str, float]]:
    yield "imported", resident_mb()
    engine = EmbeddingEngine()
    yield "engine made", resident_mb()
    engine.load_model(model, name="m", config=ModelConfig(tuning="off"))
    yield "model loaded", resident_mb()
    engine.embed("m", "Hello, world!")
    yield "one text embedded", resident_mb()
    with Peak() as peak:
        engine.embed_batch("m", short_texts(2000))
    yield "2,000 short sentences, peak", peak.mb
    yield "and after them", resident_mb()
    with Peak() as peak:
        engine.embed_batch("m", long_texts(50))
    yield "50 passages, peak", peak.mb
    engine.unload_model("m")
    yield "unloaded", resident_mb()
    engine.close()


def micro_batch(model: str, max_batch_tokens: int) -> Iterator[tuple[str, float]]:
    config = ModelConfig(tuning="off", max_batch_tokens=max_batch_tokens, max_batch_requests=256)
    with EmbeddingEngine() as engine, Peak() as peak:
        engine.load_model(model, name="m", config=config)
        engine.embed_batch("m", short_texts(2000))
        engine.embed_batch("m", long_texts(50))
        taken = engine.get_model_info("m").context_bytes / 1e6
    yield f"micro-batches of {max_batch_tokens} tokens, peak", peak.mb
    yield f"micro-batches of {max_batch_tokens} tokens, contexts", taken


def lines_of(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield line.rstrip("\n")


def stream(model: str, path: Path, n_texts: int) -> Iterator[tuple[str, float]]:
    with EmbeddingEngine() as engine:
        engine.load_model(model, name="m", config=ModelConfig(tuning="off"))
        engine.embed_batch("m", short_texts(2000))
        before, start, n_vectors = resident_mb(), time.perf_counter(), 0
        told = start
        with Peak() as peak:
            for _ in engine.embed_stream("m", lines_of(path)):
                n_vectors += 1
                if n_vectors % 1000 == 0 and (now := time.perf_counter()) - told > 10:
                    told, rate = now, n_vectors / (now - start)
                    left = (n_texts - n_vectors) / rate
                    print(
                        f"{n_vectors:,} of {n_texts:,}, {rate:,.0f} texts/s, {left:,.0f} s to go, "
                        f"peak {peak.mb:,.0f} MB",
                        file=sys.stderr,
                    )
    if n_vectors != n_texts:
        raise RuntimeError(f"{n_vectors} vectors of {n_texts} texts")
    yield "stream: when it began", before
    yield "stream: peak", peak.mb
    yield "stream: peak over the beginning", peak.mb - before


def in_a_process(results: Results, part: str, *arguments: object) -> None:
    """Measure a part in a fresh process, which writes what it found as JSON."""
    command = [sys.executable, "-m", "benches.memory", "--part", part, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    for name, mb in json.loads(done.stdout):
        results.add(name, mb, "MB", better="lower")


def write_lines(path: Path, count: int) -> None:
    """Write short texts of which no two are the same, a part at a time."""
    with path.open("w", encoding="utf-8") as file:
        for at in range(0, count, 10_000):
            part = short_texts(min(10_000, count - at), seed=at + 1)
            file.writelines(f"{at + number}: {text}\n" for number, text in enumerate(part))


def run_stream(results: Results, model: str, n_texts: int, given: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = given or Path(folder) / "texts.txt"
        if given is None:
            write_lines(path, n_texts)
        else:
            n_texts = sum(1 for _ in lines_of(path))
        print(f"{n_texts:,} lines, {path.stat().st_size / 1e6:,.0f} MB of text")
        in_a_process(results, "stream", model, path, n_texts)


def main() -> int:
    if "--part" in sys.argv[1:2]:
        part, model, *rest = sys.argv[2:]
        found = {
            "phases": lambda: phases(model),
            "micro-batch": lambda: micro_batch(model, int(rest[0])),
            "stream": lambda: stream(model, Path(rest[0]), int(rest[1])),
        }[part]()
        print(json.dumps(list(found)))
        return 0
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm:Q8_0")
    options_of.add_argument("--stream", type=int, nargs="?", const=N_LINES, metavar="N")
    options_of.add_argument("--texts", type=Path, help="a file to stream, one text a line")
    options = parsed(options_of)
    results = started("memory", describe_machine(), options)
    if options.stream or options.texts:
        run_stream(results, options.model, options.stream or N_LINES, options.texts)
    else:
        in_a_process(results, "phases", options.model)
        for max_batch_tokens in MICRO_BATCHES:
            in_a_process(results, "micro-batch", options.model, max_batch_tokens)
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

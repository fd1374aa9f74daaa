"""Resident memory by phase, in a process of its own.

python -m benches.memory [--model minilm:Q8_0]
"""

from __future__ import annotations

import argparse

import psutil

from benches.machine import describe_machine
from benches.texts import passages, short_sentences
from embellama import EmbeddingEngine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="minilm:Q8_0")
    model = parser.parse_args().model
    process = psutil.Process()

    def report(phase: str) -> None:
        print(f"{phase:34} {process.memory_info().rss / 1e6:7.0f} MB")

    print(describe_machine())
    report("imported")
    engine = EmbeddingEngine()
    report("engine made")
    info = engine.load_model(model, name="m")
    report(f"loaded {info.path.name}")
    engine.embed("m", "Hello, world!")
    report("one text embedded")
    engine.embed_batch("m", short_sentences(2000))
    report("2,000 short sentences")
    engine.embed_batch("m", passages(50))
    report("50 passages")
    engine.unload_model("m")
    report("unloaded")
    engine.close()


if __name__ == "__main__":
    main()

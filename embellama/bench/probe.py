"""A model in a process of its own: how long it takes to load, and how much memory it takes.

``python -m embellama.bench.probe`` reads one JSON object from standard input and writes one to
standard output. Other models and measurements have left nothing in its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from embellama.bench.texts import long_texts, short_texts
from embellama.config import EngineConfig, ModelConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import EmbellamaError, ModelLoadError

TIMEOUT_S = 900.0
"""A model that neither loads nor fails by then never will."""

_SHORT = 128
_LONG = 16


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model took.

    Attributes:
        rss_bytes: Growth of the process's memory, from before the load until after the texts.
        load_s: Seconds to load it.
    """

    rss_bytes: int
    load_s: float


def probe(model: str | Path, *, config: ModelConfig, engine: EngineConfig) -> Footprint:
    """Load a model in a fresh process, embed some texts, and tell what that took.

    Raises:
        ModelLoadError: It failed there; the message is that process's.
    """
    order = {
        "model": str(model),
        "config": config.model_dump(mode="json", exclude_none=True),
        "cache_path": None if engine.cache_path is None else str(engine.cache_path),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ModelLoadError(
            f"a process that was to load {str(model)!r} and embed {_SHORT + _LONG} texts had not "
            f"done it after {TIMEOUT_S:.0f} s; leave this type out"
        ) from exc
    if done.returncode != 0:
        raise ModelLoadError(_what_failed(str(model), done.returncode, done.stderr))
    return Footprint(**json.loads(done.stdout))


def _what_failed(model: str, status: int, stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else "it said nothing"
    return f"a process that was to load {model!r} ended with status {status}: {last}"


def measure_footprint(order: dict[str, Any]) -> Footprint:
    """Load and use a model in this process, as an order says, and tell what that took.

    Args:
        order: ``model``, its ``config``, and the ``cache_path`` or None.
    """
    cache_path = None if order["cache_path"] is None else Path(order["cache_path"])
    config = ModelConfig(**order["config"])
    process = psutil.Process()
    with EmbeddingEngine(EngineConfig(cache_path=cache_path, lazy=True, offline=True)) as engine:
        before = process.memory_info().rss
        start = time.perf_counter()
        engine.load_model(order["model"], name="probed", config=config)
        load_s = time.perf_counter() - start
        for texts in (short_texts(_SHORT), long_texts(_LONG)):
            engine.embed_batch("probed", texts, prompt="", overflow="truncate")
        return Footprint(max(process.memory_info().rss - before, 0), load_s)


def main() -> int:
    """Do what standard input orders; the last line of standard error says what failed."""
    try:
        found = measure_footprint(json.load(sys.stdin))
    except EmbellamaError as exc:
        sys.stderr.write(" ".join(str(exc).split()) + "\n")
        return 1
    json.dump(asdict(found), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

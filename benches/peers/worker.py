"""The process a peer lives in: a line of JSON in, a line of JSON out.

    python -m benches.peers.worker MODULE:CLASS

``{"do": "open", "settings": {…}}`` first, then ``vectors``, ``run`` and ``profile`` as often as
wanted, each with a ``work``; the end of stdin ends it. Whatever a library writes to stdout goes to
stderr, so that lines stay lines.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benches.peers.peer import ONE_BY_ONE, Peer


class Host:
    """Does what the lines say, with the peer that the first one opens."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._peer: Peer | None = None
        self._works: dict[str, list[str]] = {}
        self._cpu_s_before = 0.0

    @property
    def peer(self) -> Peer:
        if self._peer is None:
            raise RuntimeError("nothing is open")
        return self._peer

    def open(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Make the peer."""
        module, _, name = self._home.partition(":")
        self._works = json.loads(Path(settings["works"]).read_text(encoding="utf-8"))
        self._peer = getattr(importlib.import_module(module), name)(settings)
        return {"versions": self.peer.versions, "how": self.peer.how}

    def vectors(self, work: str, path: str) -> dict[str, Any]:
        """Embed a work untimed, and keep the rows."""
        texts = self._works[work]
        np.save(path, self.peer.rows(self.peer.embed(texts)))
        n_tokens = self.peer.count_tokens(texts)
        self._cpu_s_before = time.process_time()
        return {"n_tokens": n_tokens}

    def run(self, work: str) -> dict[str, float]:
        """Embed a work and say how long it took; of texts one by one, the median of one too.

        ``idle_cpu_s`` is the processor's time that this process took since it last had a turn: a
        peer that spins while others have theirs would show it; llama-server, a process of its own,
        is not counted.
        """
        texts = self._works[work]
        idle_cpu_s = time.process_time() - self._cpu_s_before
        if work == ONE_BY_ONE:
            each = [_seconds(self.peer.embed_one, text) for text in texts]
            times = {"seconds": sum(each), "p50_s": statistics.median(each)}
        else:
            times = {"seconds": _seconds(self.peer.embed, texts)}
        self._cpu_s_before = time.process_time()
        return {**times, "idle_cpu_s": idle_cpu_s}

    def profile(self, work: str) -> dict[str, Any]:
        """Say where the time of a work goes."""
        return {"shares": self.peer.profile(self._works[work])}

    def close(self) -> None:
        """End the peer, if there is one."""
        if self._peer is not None:
            self._peer.close()


def _seconds(embed: Callable[[Any], Any], given: Any) -> float:
    start = time.perf_counter()
    embed(given)
    return time.perf_counter() - start


def answer(host: Host, line: str) -> dict[str, Any]:
    """Do what a line says. What goes wrong is an answer too: others go on."""
    asked = json.loads(line)
    verbs: dict[str, Callable[..., dict[str, Any]]] = {
        "open": host.open,
        "vectors": host.vectors,
        "run": host.run,
        "profile": host.profile,
    }
    try:
        return verbs[asked.pop("do")](**asked)
    except Exception as exc:  # noqa: BLE001 - any peer may fail in any way, and says so
        first = (str(exc).strip().splitlines() or [""])[0]
        return {"error": f"{type(exc).__name__}: {first}"}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    host = Host(sys.argv[1])
    try:
        for line in sys.stdin:
            replies.write(json.dumps(answer(host, line)) + "\n")
            replies.flush()
    finally:
        host.close()


if __name__ == "__main__":
    main()

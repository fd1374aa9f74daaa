"""One of several processes on one cache file: writes and reads random keys, checks every vector.

    python -m tests.integration.cache_hammer CACHE SEED SECONDS LOG

Numbers whose vectors were committed go to LOG, eight bytes each, right after the commit. The last
line of LOG.json is the report; a process that is killed leaves none.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

import numpy as np

from embellama.cache.disk import DiskCache
from tests.unit.cache.vectors import is_right, items_of, keys_of

N_NUMBERS = 1_000_000
BATCH = 256


class Hammer:
    """What one process does, and what it saw."""

    def __init__(self, path: Path, seed: int, log: Path) -> None:
        self.cache = DiskCache(path, max_bytes=None, busy_timeout_s=60.0)
        self.chooser = random.Random(seed)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.committed: list[int] = []
        self.report = {"read": 0, "hits": 0, "written": 0, "wrong": 0, "lost": 0}

    def read(self, numbers: list[int]) -> list[int]:
        """Check what the cache has, and return what it has not."""
        values = self.cache.get_many(keys_of(numbers))
        found = [(n, value) for n, value in zip(numbers, values, strict=True) if value]
        self.report["read"] += len(numbers)
        self.report["hits"] += len(found)
        self.report["wrong"] += sum(not is_right(value, n) for n, value in found)
        return [n for n, value in zip(numbers, values, strict=True) if value is None]

    def step(self) -> None:
        missing = self.read(self.chooser.sample(range(N_NUMBERS), BATCH))
        self.cache.put_many(items_of(missing))
        assert self.cache.n_failures == 0
        os.write(self.log, np.array(missing, dtype="<i8").tobytes())
        self.committed += missing
        self.report["written"] += len(missing)
        self.report["lost"] += len(self.read(self.chooser.choices(self.committed, k=64)))


def main(path: str, seed: str, seconds: str, log: str) -> None:
    end = time.monotonic() + float(seconds)
    hammer = Hammer(Path(path), int(seed), Path(log))
    while time.monotonic() < end:
        hammer.step()
    hammer.report["lost"] += len(hammer.read(hammer.committed))
    hammer.cache.close()
    Path(f"{log}.json").write_text(json.dumps(hammer.report))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A cache on a disk that fills up: it goes on without, gives right vectors, and recovers.

    python -m tests.integration.cache_full FOLDER

FOLDER is on a file system of a few megabytes.
"""

import sys
from pathlib import Path

import structlog

from embellama.cache import EmbeddingCache, database
from tests.unit.cache.vectors import found_in, items_of


def main(folder: str) -> None:
    database.QUIET_S = 0.0
    path = Path(folder, "cache.db")
    with EmbeddingCache.on_disk(path) as cache:
        with structlog.testing.capture_logs() as events:
            for start in range(0, 10_000, 500):
                cache.put_many(items_of(range(start, start + 500)))
        kept = found_in(cache, range(10_000))
        assert 0 < len(kept) < 9000, len(kept)
        failed = [event for event in events if event["event"] == "embellama.cache.skipped"]
        assert failed, events
        assert {event["operation"] for event in failed} == {"write"}
        assert cache.stats().failures == len(failed)
        assert cache.stats().corrupt == 0
        cache.clear()
        cache.put_many(items_of(range(10)))
        assert found_in(cache, range(10_000)) == list(range(10))
    sys.stdout.write(failed[0]["error"])


if __name__ == "__main__":
    main(sys.argv[1])

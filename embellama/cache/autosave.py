"""A memory cache that is written to a file from time to time, and at the end."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from embellama.cache.memory import MemoryCache
from embellama.cache.portable import save
from embellama.errors import ConfigurationError
from embellama.logs import log


class AutoSave:
    """A thread that saves a cache where it has changed.

    Args:
        cache: What to save.
        path: The file, replaced each time.
        interval_s: Seconds from one look to the next.
    """

    def __init__(self, cache: MemoryCache, path: Path, *, interval_s: float) -> None:
        self._cache, self._path, self._interval_s = cache, path, interval_s
        self._saved_changes = cache.n_changes
        self._process_id = os.getpid()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="embellama-autosave", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Save a last time and end the thread. Does nothing in a forked child."""
        if os.getpid() != self._process_id or self._ending.is_set():
            return
        self._ending.set()
        self._thread.join()
        self._save_changes()

    def _run(self) -> None:
        while not self._ending.wait(self._interval_s):
            self._save_changes()

    def _save_changes(self) -> None:
        n_changes = self._cache.n_changes
        if n_changes == self._saved_changes:
            return
        try:
            save(self._cache, self._path)
        except ConfigurationError as exc:  # the disk is full or gone: the next time may be better
            log.warning("embellama.cache.skipped", path=str(self._path), error=str(exc))
        else:
            self._saved_changes = n_changes

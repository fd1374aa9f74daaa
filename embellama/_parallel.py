"""Threads for the work before inference; the only importer of joblib.

llama.cpp's tokenizer releases the GIL, so threads are enough and nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import joblib
import psutil

T = TypeVar("T")
R = TypeVar("R")


def available_cores(*, physical: bool = False) -> int:
    """Count the cores this process may use: affinity and container limits respected."""
    cores = int(joblib.cpu_count())
    # joblib starts a program to count physical cores, and complains where it cannot
    return min(cores, psutil.cpu_count(logical=False) or cores) if physical else cores


def map_threads(function: Callable[[T], R], items: Sequence[T], *, n_jobs: int) -> list[R]:
    """Apply a function to each item on threads; results in the order of the items.

    A single item is computed on the calling thread: starting threads would cost more.
    The first error of a call is raised.
    """
    if len(items) <= 1 or n_jobs <= 1:
        return [function(item) for item in items]
    run = joblib.Parallel(n_jobs=min(n_jobs, len(items)), backend="threading")
    return list(run(joblib.delayed(function)(item) for item in items))

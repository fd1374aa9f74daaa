"""top_k at a million rows: is it exact, what memory does it take, how long beside numpy's matmul.

    python -m benches.similarity [--n-rows 1000000] [--n-embd 384] [--rounds 5]

Memory is the peak of the resident set in a process of its own, less what was resident before the
call; the buffers that the BLAS makes for its first product are counted. The two sides of a
comparison take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benches.machine import describe_machine
from embellama.similarity import (
    cosine,
    hamming,
    hamming_matrix,
    hamming_top_k,
    kmeans,
    normalize,
    one_to_many,
    pairwise,
    rescore,
    top_k,
    top_k_codes,
)

METRICS = ("cosine", "dot", "euclidean", "manhattan", "angular")

_PEAK = """
import sys
import numpy as np
from embellama.similarity import top_k

def status(field):
    text = open("/proc/self/status").read()
    return int(text.partition(field + ":")[2].split()[0]) * 1024

path, n_embd, where, n_queries, search = sys.argv[1:]
rows = np.memmap(path, np.float32, "r").reshape(-1, int(n_embd))
if where == "memory":
    rows = np.fromfile(path, np.float32).reshape(rows.shape)
queries = np.array(rows[: int(n_queries)])
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = status("VmRSS")
if search == "top_k":
    top_k(queries, rows, 10)
else:
    np.argpartition(-(queries @ rows.T), 10, axis=1)[:, :10]
print(status("VmHWM") - before)
"""


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def random_rows(n_rows: int, n_embd: int) -> np.ndarray:
    """Make unit rows, a hundredth of them duplicates of others."""
    rng = np.random.default_rng(1)
    rows = np.empty((n_rows, n_embd), dtype=np.float32)
    for start in range(0, n_rows, 10_000):
        part = rows[start : start + 10_000]
        part[:] = normalize(rng.standard_normal(part.shape, dtype=np.float32))
    copies = rng.choice(n_rows, (2, n_rows // 100))
    rows[copies[0]] = rows[copies[1]]
    return rows


def exactness(queries: np.ndarray, rows: np.ndarray, k: int) -> None:
    """Compare with scores of all rows, computed in float64 and sorted in full."""
    for metric in METRICS:
        found = top_k(queries, rows, k, metric=metric)
        wrong = 0
        for query, indices, scores in zip(queries, *found, strict=True):
            every = one_to_many(query, rows, metric=metric)
            sign = -1 if metric in ("cosine", "dot") else 1
            order = np.argsort(sign * every, kind="stable")[:k]
            wrong += not (np.array_equal(order, indices) and np.array_equal(every[order], scores))
        print(f"    {metric:10} {len(queries) - wrong} of {len(queries)} queries the same, k={k}")


def plain(queries: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    scores = queries @ rows.T
    chosen = np.argpartition(-scores, k, axis=-1)[..., :k]
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=-1), axis=-1)
    return np.take_along_axis(chosen, order, axis=-1)


def against_matmul(queries: np.ndarray, rows: np.ndarray, k: int, rounds: int) -> None:
    runs: dict[str, Callable[[], object]] = {
        "queries @ rows.T": lambda: queries @ rows.T,
        "queries @ rows.T, argpartition, argsort": lambda: plain(queries, rows, k),
        "top_k dot": lambda: top_k(queries, rows, k, metric="dot"),
        "top_k cosine": lambda: top_k(queries, rows, k),
        "top_k euclidean": lambda: top_k(queries, rows, k, metric="euclidean"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(timed(run))
    for name, taken in seconds.items():
        ratios = [own / base for own, base in zip(taken, seconds["queries @ rows.T"], strict=True)]
        print(
            f"    {name:42} {statistics.median(taken) * 1e3:8.0f} ms (least {min(taken) * 1e3:.0f})"
            f"   {statistics.median(ratios):.2f} of the matmul's time"
        )


def peak_memory(path: Path, n_embd: int) -> None:
    for search in ("top_k", "matmul"):
        for where in ("memory", "memmap"):
            for n_queries in (1, 100, 1000):
                if search == "matmul" and (where, n_queries) != ("memory", 100):
                    continue  # one will do for comparison
                arguments = [str(path), str(n_embd), where, str(n_queries), search]
                done = subprocess.run(
                    [sys.executable, "-c", _PEAK, *arguments],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                print(
                    f"    {search:6} {n_queries:5} queries, rows in a {where:6} "
                    f"{int(done.stdout) / 1e6:7.0f} MB"
                )


def each_function(rows: np.ndarray, rounds: int) -> None:
    few, some, many = rows[:2000], rows[:20_000], rows[:100_000]
    query, queries = rows[0], rows[:100]
    bits = np.packbits(rows > 0, axis=1)
    ranges = np.stack([many.min(axis=0), many.max(axis=0)])
    step = (ranges[1] - ranges[0]) / 255
    codes = (np.floor((many - ranges[0]) / step).clip(0, 255) - 128).astype(np.int8)
    found = hamming_top_k(bits[:100], bits, 100).indices
    runs: dict[str, Callable[[], object]] = {
        "cosine, one to one": lambda: cosine(query, rows[1]),
        "normalize, 100,000 rows": lambda: normalize(many),
        **{
            f"one_to_many {metric}, 100,000 rows": lambda m=metric: one_to_many(
                query, many, metric=m
            )
            for metric in METRICS
        },
        **{
            f"pairwise {metric}, 2,000 x 2,000": lambda m=metric: pairwise(few, metric=m)
            for metric in METRICS
        },
        f"top_k manhattan, 1 query, {len(rows):,} rows": lambda: top_k(
            query, rows, 10, metric="manhattan"
        ),
        "hamming, one to one": lambda: hamming(bits[0], bits[1]),
        "hamming_matrix, 2,000 x 20,000": lambda: hamming_matrix(bits[:2000], bits[:20_000]),
        f"hamming_top_k, 1 query, {len(rows):,} codes": lambda: hamming_top_k(bits[0], bits, 10),
        f"hamming_top_k, 100 queries, {len(rows):,} codes": lambda: hamming_top_k(
            bits[:100], bits, 10
        ),
        f"top_k_codes ubinary, 100 queries, {len(rows):,} codes": lambda: top_k_codes(
            queries, bits, 10, precision="ubinary"
        ),
        "top_k_codes int8, 100 queries, 100,000 codes": lambda: top_k_codes(
            queries, codes, 10, precision="int8", ranges=ranges
        ),
        "rescore, 100 queries, 100 candidates each": lambda: rescore(queries, found, rows, 10),
        "kmeans, 20,000 rows, 50 clusters": lambda: kmeans(some, 50, max_iterations=20),
        "kmeans on the sphere, 20,000 rows, 50 clusters": lambda: kmeans(
            some, 50, max_iterations=20, spherical=True
        ),
    }
    for name, run in runs.items():
        run()
        print(f"    {name:52} {statistics.median(timed(run) for _ in range(rounds)) * 1e3:9.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-rows", type=int, default=1_000_000)
    parser.add_argument("--n-embd", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(describe_machine())
    rows = random_rows(options.n_rows, options.n_embd)
    print(
        f"{rows.shape[0]:,} x {rows.shape[1]} float32, {rows.nbytes / 1e6:.0f} MB; numpy {np.__version__}"
    )
    print("exact against a full sort in float64, ties by index:")
    exactness(rows[:: options.n_rows // 5][:5], rows, 100)
    for n_queries in (1, 100):
        print(f"time, {n_queries} queries, k=10:")
        against_matmul(rows[:n_queries], rows, 10, options.rounds)
    print("time of each function:")
    each_function(rows, options.rounds)
    print("peak memory beside the rows and before the call:")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.f32"
        rows.tofile(path)
        del rows
        peak_memory(path, options.n_embd)


if __name__ == "__main__":
    main()

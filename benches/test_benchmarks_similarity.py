"""pytest-benchmark figures of embellama.similarity, and the ratios that have to hold."""

import statistics
import time

import numpy as np
import pytest

from embellama.similarity import (
    hamming_top_k,
    kmeans,
    normalize,
    one_to_many,
    pairwise,
    top_k,
    top_k_codes,
)

METRICS = ("cosine", "dot", "euclidean", "manhattan", "angular")


@pytest.fixture(scope="module")
def rows():
    return normalize(np.random.default_rng(1).standard_normal((100_000, 384), dtype=np.float32))


@pytest.fixture(scope="module")
def bits(rows):
    return np.packbits(rows > 0, axis=1)


@pytest.mark.parametrize("n_queries", [1, 100])
@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_top_k(benchmark, rows, metric, n_queries):
    found = benchmark(top_k, rows[:n_queries], rows, 10, metric=metric)
    assert found.indices[:, 0].tolist() == list(range(n_queries))


@pytest.mark.parametrize("metric", METRICS)
def test_one_to_many(benchmark, rows, metric):
    assert benchmark(one_to_many, rows[0], rows[:20_000], metric=metric).shape == (20_000,)


@pytest.mark.parametrize("metric", METRICS)
def test_pairwise(benchmark, rows, metric):
    assert benchmark(pairwise, rows[:1000], metric=metric).shape == (1000, 1000)


def test_normalize(benchmark, rows):
    assert benchmark(normalize, rows).shape == rows.shape


def test_hamming_top_k(benchmark, bits):
    assert benchmark(hamming_top_k, bits[:10], bits, 10).indices[:, 0].tolist() == list(range(10))


def test_top_k_codes(benchmark, rows, bits):
    found = benchmark(top_k_codes, rows[:10], bits, 10, precision="ubinary")
    assert found.indices[:, 0].tolist() == list(range(10))


@pytest.mark.parametrize("spherical", [False, True])
def test_kmeans(benchmark, rows, spherical):
    found = benchmark.pedantic(
        kmeans, (rows[:10_000], 20), {"max_iterations": 10, "spherical": spherical}, rounds=3
    )
    assert found.centroids.shape == (20, 384)


def test_top_k_costs_little_more_than_the_product(rows):
    """A ratio in one run: the search, exact and in blocks, beside numpy's product and partition."""

    def search():
        top_k(rows[:100], rows, 10, metric="dot")

    def product():
        np.argpartition(-(rows[:100] @ rows.T), 10, axis=1)

    def seconds(run):
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    ratios = [seconds(search) / seconds(product) for _ in range(7)]
    assert statistics.median(ratios) < 1.5

import subprocess
import sys

import numpy as np
import pytest

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity import normalize, one_to_many, top_k

METRICS = ("cosine", "dot", "euclidean", "manhattan", "angular")


def random_rows(n, n_embd, seed=1):
    return np.random.default_rng(seed).standard_normal((n, n_embd)).astype(np.float32)


def sorted_in_full(query, vectors, k, metric):
    """Score everything and sort it: equal scores in the order of their indices."""
    scores = one_to_many(query, vectors, metric=metric)
    sign = -1 if metric in ("cosine", "dot") else 1
    order = np.argsort(sign * scores, kind="stable")[:k]
    return order, scores[order]


def agrees(queries, vectors, k, metric, **options):
    indices, scores = top_k(queries, vectors, k, metric=metric, **options)
    assert indices.dtype == np.int64
    assert scores.dtype == np.float32
    assert indices.shape == scores.shape == (len(queries), min(k, len(vectors)))
    for query, found, found_scores in zip(queries, indices, scores, strict=True):
        order, expected = sorted_in_full(query, vectors, k, metric)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(found_scores, expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 10, 700, 3000, 5000])
def test_a_full_sort_gives_the_same(metric, k):
    agrees(random_rows(3, 24, seed=2), random_rows(3000, 24), k, metric, block_rows=257)


@pytest.mark.parametrize("metric", METRICS)
def test_more_queries_than_a_group(metric):
    agrees(random_rows(300, 8, seed=2), random_rows(200, 8), 5, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_duplicates_come_in_order_wherever_they_lie(metric):
    """A product in float32 gives duplicates different last digits at the edges of a block."""
    few = normalize(random_rows(7, 100))
    vectors = few[np.random.default_rng(3).integers(0, 7, 4001)]
    for block_rows in (1, 13, 1000, 4001):
        if block_rows == 1:
            agrees(few[:1], vectors[:300], 9, metric, block_rows=1)
        else:
            agrees(few, vectors, 600, metric, block_rows=block_rows)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_float32_cannot_tell_apart_by_a_product(metric):
    """One unit in the last place apart, far from the origin: the worst for a matrix product."""
    base = np.full(64, 1000, dtype=np.float32)
    steps = np.random.default_rng(1).integers(-3, 4, (2000, 64))
    vectors = base + steps.astype(np.float32) * np.spacing(base)
    agrees(vectors[:3], vectors, 20, metric, block_rows=500)


@pytest.mark.parametrize("metric", METRICS)
def test_every_block_better_than_the_one_before(metric):
    query = np.array([[1, 0]], dtype=np.float32)
    angles = np.linspace(np.pi, 0, 5000)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    agrees(query, vectors, 10, metric, block_rows=100)


@pytest.mark.parametrize("metric", METRICS)
def test_lengths_from_tiny_to_huge(metric):
    rng = np.random.default_rng(5)
    lengths = 10.0 ** rng.uniform(-38, 17, (3000, 1))
    vectors = (random_rows(3000, 6) * lengths).astype(np.float32)
    vectors[::50] = 0
    agrees(vectors[[1, 2, 50]], vectors, 40, metric, block_rows=999)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats(dtype):
    agrees(
        random_rows(2, 16, seed=2).astype(dtype), random_rows(500, 16).astype(dtype), 5, "cosine"
    )


def test_one_query_gives_one_row():
    query, vectors = random_rows(1, 8)[0], random_rows(50, 8, seed=2)
    found = top_k(query, vectors, 3)
    assert found.indices.shape == found.scores.shape == (3,)
    both = top_k(query[np.newaxis], vectors, 3)
    np.testing.assert_array_equal(both.indices[0], found.indices)


def test_the_nearest_come_first():
    vectors = np.array([[1, 0], [0, 1], [1, 1], [-1, 0]], dtype=np.float32)
    query = np.array([1.0, 0.1])
    for metric in METRICS:
        indices, scores = top_k(query, vectors, 4, metric=metric)
        assert indices[0] == (2 if metric == "dot" else 0)
        assert indices[-1] == 3
        ascending = metric not in ("cosine", "dot")
        assert (np.diff(scores) >= 0).all() if ascending else (np.diff(scores) <= 0).all()


def test_zero_vectors_score_zero():
    indices, scores = top_k(np.zeros(4), random_rows(5, 4), 3)
    assert indices.tolist() == [0, 1, 2]
    assert scores.tolist() == [0, 0, 0]
    assert not np.signbit(scores).any()


def test_more_than_there_are():
    vectors = random_rows(4, 8)
    assert top_k(vectors[:2], vectors, 100).indices.shape == (2, 4)
    assert top_k(vectors[0], vectors[:0], 5).indices.shape == (0,)
    assert top_k(vectors[:2], vectors[:0], 5).scores.shape == (2, 0)
    assert top_k(vectors[:0], vectors, 5).indices.shape == (0, 4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_on_disk(tmp_path, order):
    vectors = random_rows(2000, 16)
    mapped = np.memmap(tmp_path / "v", np.float32, "w+", shape=vectors.shape, order=order)
    mapped[:] = vectors
    mapped.flush()
    for mode in ("r", "r+", "c"):
        rows = np.memmap(tmp_path / "v", np.float32, mode, shape=vectors.shape, order=order)
        agrees(vectors[:2], rows, 7, "cosine", block_rows=300)
        np.testing.assert_array_equal(rows, vectors)


def test_changes_that_live_in_memory_alone_survive_a_search(tmp_path):
    vectors = random_rows(4096, 16)
    vectors.tofile(tmp_path / "v")
    private = np.memmap(tmp_path / "v", np.float32, "c", shape=vectors.shape)
    private[:] = vectors[::-1]
    top_k(vectors[0], private, 3, block_rows=512)
    np.testing.assert_array_equal(private, vectors[::-1])


@pytest.mark.parametrize("side", ["queries", "vectors"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_and_infinity_are_refused(side, bad, metric):
    arrays = {"queries": random_rows(3, 8), "vectors": random_rows(1000, 8)}
    arrays[side][-1, 3] = bad
    row = len(arrays[side]) - 1
    with pytest.raises(InvalidInputError, match=f"row {row} of {side} holds NaN or inf") as caught:
        top_k(arrays["queries"], arrays["vectors"], 2, metric=metric, block_rows=300)
    assert caught.value.indices == (row,)


@pytest.mark.parametrize(
    ("queries", "vectors", "options", "message"),
    [
        (random_rows(1, 3), random_rows(5, 4), {}, r"queries is float32 \(1, 3\), vectors is fl"),
        (random_rows(1, 3), np.ones(3), {}, r"vectors is float64 \(3,\) with 1 axes; pass rows"),
        (np.ones((1, 1, 3)), random_rows(5, 3), {}, "queries is .* with 3 axes"),
        (random_rows(1, 3), random_rows(5, 3), {"k": 0}, "k is 0; pass a whole number from 1"),
        (random_rows(1, 3), random_rows(5, 3), {"k": 1.5}, "k is 1.5; pass a whole number"),
        (random_rows(1, 3), random_rows(5, 3), {"block_rows": 0}, "block_rows is 0; pass"),
        (random_rows(1, 3), random_rows(5, 3), {"metric": "cos"}, "metric is 'cos'; choose"),
    ],
)
def test_what_does_not_fit_is_named(queries, vectors, options, message):
    with pytest.raises(InvalidInputError, match=message):
        top_k(queries, vectors, **{"k": 1, **options})


def test_codes_are_sent_elsewhere():
    with pytest.raises(InvalidInputTypeError, match=r"vectors is int8 \(5, 3\).*top_k_codes"):
        top_k(random_rows(1, 3), np.ones((5, 3), np.int8), 1)


_PEAK = """
import sys
import numpy as np
import psutil
from embellama.similarity import top_k

def peak_bytes():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

rows = np.memmap(sys.argv[1], np.float32, "r").reshape(-1, 384)
if sys.argv[2] == "memory":
    rows = np.array(rows)
top_k(rows[:64], rows[:20_000], 10)
open("/proc/self/clear_refs", "w").write("5")
before = psutil.Process().memory_info().rss
top_k(rows[:64], rows, 10, metric=sys.argv[3])
print(peak_bytes() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc and madvise")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_memory_does_not_grow_with_the_rows(tmp_path, where, metric):
    """150 MB of rows are searched with far less beside them, mapped pages included."""
    path = tmp_path / "rows.f32"
    random_rows(100_000, 384).tofile(path)
    command = [sys.executable, "-c", _PEAK, str(path), where, metric]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60e6

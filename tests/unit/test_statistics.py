import json
import threading
import timeit

import numpy as np
import pytest

from embellama.statistics import RECENT, ModelStatistics, Quantiles


def test_nothing_done_is_zero_and_nothing_measured_is_none():
    assert ModelStatistics("m").snapshot().to_dict() == {
        "model": "m",
        "n_texts": 0,
        "n_tokens": 0,
        "n_batches": 0,
        "n_slots": 0,
        "computed_s": 0.0,
        "cache_hits": 0,
        "cache_misses": 0,
        "n_truncated": 0,
        "n_dropped_tokens": 0,
        "n_errors": 0,
        "queue_s": None,
        "tokenize_s": None,
        "inference_s": None,
    }


def test_every_record_adds_to_its_own_counts():
    statistics = ModelStatistics("m")
    for _ in range(2):
        statistics.record_texts(5, n_truncated=2, n_dropped_tokens=70)
        statistics.record_tokenization(0.5)
        statistics.record_batch(n_tokens=100, n_slots=512, queue_s=0.25, inference_s=2.0)
        statistics.record_lookups(hits=3, misses=4)
        statistics.record_error()
    snapshot = statistics.snapshot()
    assert json.loads(json.dumps(snapshot.to_dict())) == {
        "model": "m",
        "n_texts": 10,
        "n_tokens": 200,
        "n_batches": 2,
        "n_slots": 1024,
        "computed_s": 4.0,
        "cache_hits": 6,
        "cache_misses": 8,
        "n_truncated": 4,
        "n_dropped_tokens": 140,
        "n_errors": 2,
        "queue_s": {"p50": 0.25, "p95": 0.25, "p99": 0.25},
        "tokenize_s": {"p50": 0.5, "p95": 0.5, "p99": 0.5},
        "inference_s": {"p50": 2.0, "p95": 2.0, "p99": 2.0},
    }


def test_a_snapshot_stays_as_it_was():
    statistics = ModelStatistics("m")
    before = statistics.snapshot()
    statistics.record_texts(1)
    assert (before.n_texts, statistics.snapshot().n_texts) == (0, 1)


def test_quantiles_are_those_of_the_last_durations():
    statistics = ModelStatistics("m")
    durations = np.random.default_rng(3).exponential(size=RECENT + 500)
    for duration in durations:
        statistics.record_batch(n_tokens=1, n_slots=2, queue_s=duration, inference_s=2 * duration)
    snapshot = statistics.snapshot()
    expected = np.quantile(durations[-RECENT:], [0.5, 0.95, 0.99])
    found = snapshot.queue_s
    assert [found.p50, found.p95, found.p99] == pytest.approx(expected)
    assert snapshot.inference_s.p50 == pytest.approx(2 * expected[0])
    assert snapshot.n_batches == RECENT + 500


def test_quantiles_interpolate_between_neighbours():
    assert Quantiles.of([0.0, 1.0]) == Quantiles(p50=0.5, p95=0.95, p99=0.99)


def test_no_count_is_lost_between_threads_and_every_snapshot_is_of_one_moment():
    statistics = ModelStatistics("m")
    torn = []
    done = threading.Event()

    def write():
        for _ in range(5000):
            statistics.record_texts(2, n_truncated=1, n_dropped_tokens=3)
            statistics.record_batch(n_tokens=7, n_slots=8, queue_s=0.0, inference_s=0.0)

    def read():
        while not done.is_set():
            seen = statistics.snapshot()
            if (seen.n_texts, seen.n_dropped_tokens) != (
                2 * seen.n_truncated,
                3 * seen.n_truncated,
            ):
                torn.append(seen)
            if seen.n_tokens != 7 * seen.n_batches:
                torn.append(seen)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    snapshot = statistics.snapshot()
    assert (snapshot.n_texts, snapshot.n_tokens, snapshot.n_batches) == (40_000, 140_000, 20_000)


def test_a_record_costs_a_small_part_of_what_it_measures():
    statistics = ModelStatistics("m")
    taken = timeit.repeat(
        lambda: statistics.record_batch(n_tokens=1, n_slots=2, queue_s=0.1, inference_s=0.1),
        number=2000,
        repeat=20,
    )
    # the fastest MiniLM micro-batch takes a millisecond; 10 µs leave room for a busy machine
    assert min(taken) / 2000 < 10e-6

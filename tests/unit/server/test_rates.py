"""Token buckets."""

import pytest

from embellama.server.problems import Problem
from embellama.server.rates import MAX_CLIENTS, TokenBuckets


def test_a_bucket_empties_and_fills():
    buckets = TokenBuckets(2.0, 3)
    for _ in range(3):
        buckets.take("a", now=0.0)
    with pytest.raises(Problem) as caught:
        buckets.take("a", now=0.1)
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.retry_after_s == pytest.approx(0.4)
    buckets.take("b", now=0.1)
    buckets.take("a", now=0.5)
    with pytest.raises(Problem):
        buckets.take("a", now=0.5)
    for _ in range(3):  # never more than a full one
        buckets.take("a", now=1000.0)
    with pytest.raises(Problem):
        buckets.take("a", now=1000.0)


def test_without_a_rate_there_is_no_limit():
    buckets = TokenBuckets(None)
    for _ in range(1000):
        buckets.take("a", now=0.0)


def test_a_burst_is_ten_seconds_worth_unless_it_is_said():
    buckets = TokenBuckets(0.01)
    buckets.take("a", now=0.0)
    with pytest.raises(Problem):
        buckets.take("a", now=0.0)


def test_no_number_of_clients_fills_the_memory():
    buckets = TokenBuckets(1.0, 1)
    for number in range(MAX_CLIENTS + 50):
        buckets.take(str(number), now=0.0)
    assert len(buckets._buckets) == MAX_CLIENTS

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embellama.bench.scores import average_ranks, cosines, ndcg, neighbours, overlap, spearman

FEW_VALUES = arrays(np.float64, st.integers(2, 40), elements=st.integers(-3, 3).map(float))


def rows(*values):
    return np.array(values, dtype=np.float32)


def test_equal_values_share_the_mean_of_their_ranks():
    assert average_ranks(np.array([10.0, 30.0, 20.0])).tolist() == [1, 3, 2]
    assert average_ranks(np.array([1.0, 2.0, 2.0, 2.0, 5.0, 5.0])).tolist() == [
        1, 3, 3, 3, 5.5, 5.5,
    ]  # fmt: skip


@given(FEW_VALUES)
def test_ranks_add_up_and_follow_the_values(values):
    ranks = average_ranks(values)
    n = len(values)
    assert ranks.sum() == pytest.approx(n * (n + 1) / 2)
    below = (values[:, None] < values).sum(axis=0)
    equal = (values[:, None] == values).sum(axis=0)
    assert ranks.tolist() == (below + (equal + 1) / 2).tolist()


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # of scipy.stats.spearmanr, 1.17.1
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 0.8207826816681233),
        ([106, 100, 86, 101, 99, 103, 97, 113, 112, 110], [7, 27, 2, 50, 28, 29, 20, 12, 6, 17],
         -0.1757575757575758),
        ([1, 1, 2, 2, 3], [1, 2, 2, 3, 3], 0.8055555555555555),
        ([1, 2, 3], [10, 20, 40], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 1, 1], [3, 2, 1], 0.0),
    ],
)  # fmt: skip
def test_known_correlations(a, b, expected):
    assert spearman(np.array(a, float), np.array(b, float)) == pytest.approx(expected, abs=1e-12)


@given(FEW_VALUES, st.randoms(use_true_random=False))
def test_only_the_order_counts(values, chooser):
    other = np.array([chooser.choice([0.0, 1.0, 2.5]) for _ in values])
    found = spearman(values, other)
    assert -1 <= found <= 1
    assert spearman(np.exp(values), other) == pytest.approx(found)
    assert spearman(other, values) == pytest.approx(found)
    assert spearman(-values, other) == pytest.approx(-found)
    if len(set(values.tolist())) > 1:
        assert spearman(values, values) == pytest.approx(1)


def test_known_gains():
    # Järvelin and Kekäläinen's kind of example: gains 3, 2, 3, 0, 1, 2 in the order found
    judged = dict(enumerate([3.0, 2.0, 3.0, 0.0, 1.0, 2.0]))
    assert ndcg(range(6), judged) == pytest.approx(6.861126688593502 / 7.140995184095700)
    assert ndcg([5, 4, 3, 2, 1, 0], {5: 1.0}) == 1
    assert ndcg([0, 5], {5: 1.0}) == pytest.approx(1 / math.log2(3))
    assert ndcg(range(10), {10: 1.0}) == 0
    assert ndcg([0, 1], {0: -1.0, 1: 2.0}) == pytest.approx(1 / math.log2(3))
    # more relevant ones than the ranking is deep: the best ten are all there can be
    assert ndcg(range(10), dict.fromkeys(range(30), 1.0)) == 1
    assert ndcg([], {}) == 0


@given(
    st.permutations(range(12)), st.dictionaries(st.integers(0, 11), st.integers(0, 3).map(float))
)
def test_the_best_order_gains_all_and_no_order_more(order, judged):
    best = sorted(range(12), key=lambda document: -judged.get(document, 0))
    assert ndcg(order, judged) <= ndcg(best, judged) + 1e-12
    assert ndcg(best, judged) == (pytest.approx(1) if any(judged.values()) else 0)


def test_cosines_row_by_row():
    found = cosines(rows([1, 0], [1, 1], [0, 0]), rows([2, 0], [1, -1], [1, 0]))
    assert found.tolist() == [1, 0, 0]


def test_neighbours_leave_the_row_itself_out():
    found = neighbours(rows([1, 0], [0.9, 0.1], [0, 1], [0.2, 0.9]))
    assert found.tolist() == [[1, 3, 2], [0, 3, 2], [3, 1, 0], [2, 1, 0]]
    assert neighbours(rows([1, 0])).shape == (1, 0)
    assert neighbours(np.ones((30, 2), np.float32)).shape == (30, 10)


def test_overlap_is_the_share_that_stays():
    expected = np.array([[1, 2], [0, 2]])
    assert overlap(expected, expected) == 1
    assert overlap(np.array([[2, 1], [3, 4]]), expected) == 0.5
    assert overlap(np.zeros((1, 0), int), np.zeros((1, 0), int)) == 1

import pytest

from embellama.batching import LEAST_TOKENS, plan_micro_batches, tokens_for_all


def test_sequences_of_like_length_go_together():
    plan = plan_micro_batches([3, 9, 3, 9, 2], max_batch_tokens=18, max_batch_requests=8)
    assert plan == [[1, 3], [0, 2, 4]]


def test_the_number_of_sequences_is_limited():
    plan = plan_micro_batches([1] * 5, max_batch_tokens=100, max_batch_requests=2)
    assert plan == [[0, 1], [2, 3], [4]]


def test_a_sequence_over_the_budget_goes_alone():
    plan = plan_micro_batches([4, 50, 4], max_batch_tokens=10, max_batch_requests=8)
    assert plan == [[1], [0, 2]]


def test_nothing_makes_nothing():
    assert plan_micro_batches([], max_batch_tokens=10, max_batch_requests=8) == []


@pytest.mark.parametrize(
    ("n_tokens", "n_contexts", "max_batch_tokens", "expected"),
    [
        (1000, 2, 256, 256),  # enough for full micro-batches
        (300, 2, 256, 150),  # a half for each
        (301, 2, 256, 151),  # and the odd token with one of them
        (300, 1, 256, 256),
        (90, 2, 256, LEAST_TOKENS),  # too little to divide
        (90, 2, 40, 40),  # the budget comes first
        (0, 4, 256, LEAST_TOKENS),
    ],
)
def test_a_few_texts_keep_every_context_busy(n_tokens, n_contexts, max_batch_tokens, expected):
    got = tokens_for_all(n_tokens, n_contexts=n_contexts, max_batch_tokens=max_batch_tokens)
    assert got == expected

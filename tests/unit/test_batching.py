from embellama.batching import plan_micro_batches


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

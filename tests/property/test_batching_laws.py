from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from embellama.batching import plan_micro_batches

lengths = st.lists(st.integers(1, 600), max_size=200)


@given(lengths, st.integers(1, 700), st.integers(1, 256))
def test_micro_batches_partition_the_input_within_the_budget(lengths, max_tokens, max_requests):
    plan = plan_micro_batches(lengths, max_batch_tokens=max_tokens, max_batch_requests=max_requests)
    assert sorted(index for batch in plan for index in batch) == list(range(len(lengths)))
    for batch in plan:
        assert 1 <= len(batch) <= max_requests
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= max_tokens


@given(lengths, st.integers(1, 700), st.integers(1, 256))
def test_order_is_by_length_and_then_as_given(lengths, max_tokens, max_requests):
    plan = plan_micro_batches(lengths, max_batch_tokens=max_tokens, max_batch_requests=max_requests)
    order = [index for batch in plan for index in batch]
    assert order == sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))


@given(lengths, st.integers(1, 700), st.integers(1, 256))
def test_two_neighbouring_micro_batches_would_not_fit_into_one(lengths, max_tokens, max_requests):
    plan = plan_micro_batches(lengths, max_batch_tokens=max_tokens, max_batch_requests=max_requests)
    for left, right in pairwise(plan):
        tokens = sum(lengths[index] for index in left) + lengths[right[0]]
        assert tokens > max_tokens or len(left) == max_requests

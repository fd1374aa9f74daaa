from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama.calls import Call
from embellama.errors import ContextError, EmbeddingGenerationError
from embellama.testing import FakeModel, length_rows
from embellama.types import ContextOptions, Layout, Layouts, MicroBatch
from embellama.waiting import Group, WaitingLine
from embellama.worker import InferenceWorker

BATCH = MicroBatch.pack([np.array([7, 8, 9], np.int32), np.array([4], np.int32)])
LAYOUT = Layout(1, 1, 16)
NAN, INF = float("nan"), float("inf")


def group_of(batch, call):
    bounds = list(pairwise(batch.offsets.tolist()))
    types = batch.token_types
    return Group(
        [batch.input_ids[start:stop] for start, stop in bounds],
        None if types is None else [types[start:stop] for start, stop in bounds],
        call,
        LAYOUT,
    )


def run(model, batches, *, pooling_type="mean", on_done=lambda computed: None, n_tokens=64):
    """Let a worker compute micro-batches, one after the other; return their groups, done."""
    line = WaitingLine(Layouts.of_one(LAYOUT), max_batch_requests=4, worker_tokens=[n_tokens])
    call = Call()  # of one call, groups share no micro-batch
    groups = [group_of(batch, call) for batch in batches]
    line.put(groups)
    options = ContextOptions(
        n_tokens=n_tokens, n_sequences=4, n_threads=1, pooling_type=pooling_type
    )
    worker = InferenceWorker(
        model, line, 0, options=options, n_tokens_at_start=16, name="test", on_done=on_done
    )
    for group in groups:
        group.rows.exception(timeout=10)
    line.close()
    worker.join()
    return groups


def bad_first(values, *, times=1):
    """Make a model whose first ``times`` answers hold some value."""
    left = [times]

    def compute(batch):
        rows = length_rows(batch)
        if left[0]:
            left[0] -= 1
            rows[-1, 0] = values
        return rows

    return FakeModel(compute)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_bad_rows_are_computed_once_more_each_alone_on_a_fresh_context(value):
    model = bad_first(value)
    with capture_logs() as logs:
        (job,) = run(model, [BATCH])
    np.testing.assert_array_equal(job.rows.result(), [[3, 7], [1, 4]])
    assert len(model.contexts) == 2
    assert [len(context.batches) for context in model.contexts] == [1, 2]
    assert [batch.n_sequences for batch in model.contexts[1].batches] == [1, 1]
    assert all(context.closed for context in model.contexts)
    assert logs == [
        {"event": "embellama.microbatch.repeated", "log_level": "warning", "n_tokens": 4}
    ]


def test_rows_that_stay_bad_are_given_as_they_are_and_spoil_no_other():
    """As a text's token with NaN does: whatever is packed with it comes out as NaN too."""

    def compute(batch):
        return length_rows(batch) * (NAN if 8 in batch.input_ids else 1)

    model = FakeModel(compute)
    good = MicroBatch.pack([np.array([5, 6], np.int32)])
    bad, after = run(model, [BATCH, good])
    assert np.isnan(bad.rows.result()[0]).all()
    np.testing.assert_array_equal(bad.rows.result()[1], [1, 4])
    np.testing.assert_array_equal(after.rows.result(), [[2, 5]])
    # a context that bad values have been through is used for nothing else
    assert [len(context.batches) for context in model.contexts] == [1, 1, 2]


def test_token_types_stay_with_their_sequences_when_each_is_run_alone():
    types = [np.array([0, 0, 1], np.int32), np.array([1], np.int32)]
    model = bad_first(NAN)
    run(model, [MicroBatch.pack([np.array([7, 8, 9], np.int32), np.array([4], np.int32)], types)])
    alone = [batch.token_types.tolist() for batch in model.contexts[1].batches]
    assert alone == [[0, 0, 1], [1]]


def test_the_micro_batch_after_bad_rows_runs_on_the_fresh_context():
    model = bad_first(NAN)
    jobs = run(model, [BATCH, BATCH, BATCH])
    assert [len(context.batches) for context in model.contexts] == [1, 4]
    for job in jobs:
        np.testing.assert_array_equal(job.rows.result(), [[3, 7], [1, 4]])


def test_a_failure_of_the_second_try_reaches_the_caller():
    left = [NAN]

    def compute(batch):
        if not left:
            raise ValueError("odd")
        return length_rows(batch) * left.pop()

    (job,) = run(FakeModel(compute), [BATCH])
    with pytest.raises(EmbeddingGenerationError, match="the worker failed") as caught:
        job.rows.result()
    assert isinstance(caught.value.__cause__, ValueError)


def token_rows(batch):
    """Give each token the row (its id, minus its id)."""
    return np.stack([batch.input_ids, -batch.input_ids], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("pooling_type", "expected"),
    [
        ("max", [[9, -7], [4, -4]]),
        ("mean_sqrt_len", [[24 / 3**0.5, -24 / 3**0.5], [4, -4]]),
        ("none", [[7, -7], [8, -8], [9, -9], [4, -4]]),
    ],
)
def test_token_rows_are_pooled_here_where_llama_cpp_cannot(pooling_type, expected):
    (job,) = run(FakeModel(token_rows), [BATCH], pooling_type=pooling_type)
    np.testing.assert_allclose(job.rows.result(), expected, rtol=1e-6)
    assert job.rows.result().dtype == np.float32


def test_token_rows_that_are_bad_are_seen_before_they_are_pooled():
    left = [-INF]  # which the largest of a component would hide

    def compute(batch):
        rows = token_rows(batch)
        if left:
            rows[0, 1] = left.pop()
        return rows

    model = FakeModel(compute)
    (job,) = run(model, [BATCH], pooling_type="max")
    assert len(model.contexts) == 2
    np.testing.assert_array_equal(job.rows.result(), [[9, -7], [4, -4]])


def test_times_and_what_was_computed_are_told():
    done = []
    jobs = run(FakeModel(), [BATCH, BATCH], on_done=done.append)
    assert [(each.n_tokens, each.queue_s) for each in done] == [(4, job.queue_s) for job in jobs]
    for job, computed in zip(jobs, done, strict=True):
        assert job.inference_s == computed.inference_s > 0
        assert job.queue_s > 0


def test_a_failed_micro_batch_is_not_told_as_done_and_costs_its_context():
    answers = [MemoryError("no room")]

    def compute(batch):
        if answers:
            raise answers.pop()
        return length_rows(batch)

    done, model = [], FakeModel(compute)
    with capture_logs() as logs:
        first, second = run(model, [BATCH, BATCH], on_done=done.append)
    with pytest.raises(ContextError, match="memory is short: no room"):
        first.rows.result()
    assert second.rows.result().shape == (2, 2)
    assert [computed.inference_s for computed in done] == [second.inference_s]
    assert len(model.contexts) == 2
    assert [entry["event"] for entry in logs] == ["embellama.microbatch.failed"]


def test_token_types_reach_the_context():
    types = np.array([0, 1, 1, 0], np.int32)
    batch = MicroBatch(BATCH.input_ids, BATCH.offsets, types)
    model = FakeModel()
    run(model, [batch])
    np.testing.assert_array_equal(model.contexts[0].batches[0].token_types, types)


def test_a_log_processor_that_raises_neither_hangs_a_caller_nor_ends_the_worker(monkeypatch):
    """What the application put into structlog is not ours."""

    def fail(*args, **fields):
        raise RuntimeError("the log is broken")

    told = []
    monkeypatch.setattr("embellama.worker.log", SimpleNamespace(warning=fail))
    monkeypatch.setattr("threading.excepthook", lambda args: told.append(args.exc_value))
    answers = [MemoryError("no room")]

    def compute(batch):
        if answers:
            raise answers.pop()
        return length_rows(batch)

    first, second = run(FakeModel(compute), [BATCH, BATCH])
    with pytest.raises(ContextError, match="no room"):
        first.rows.result(0)
    assert second.rows.result(0).shape == (2, 2)
    assert [str(error) for error in told] == ["the log is broken"]

"""Windows through a scheduler whose answers are scripted."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from embellama.calls import Call
from embellama.encoding import Encoding
from embellama.errors import BatchError, DecodeError, EmbeddingGenerationError
from embellama.pipeline import Meter, Pipeline, Stopwatch, Window
from embellama.scheduler import Scheduler
from embellama.testing import FakeModel
from embellama.types import ContextOptions, Layout, Layouts


@dataclass
class Facts:
    name: str = "m"
    n_embd: int = 2


@dataclass
class Model:
    """As much of a loaded model as the pipeline uses."""

    scheduler: object
    facts: Facts = field(default_factory=Facts)


def row_of(ids):
    return [float(ids.sum()), float(len(ids))]


def sums(batch):
    parts = np.split(batch.input_ids, batch.offsets[1:-1])
    return np.array([row_of(ids) for ids in parts], dtype=np.float32)


@pytest.fixture
def make():
    made = []

    def model(compute=sums):
        fake = FakeModel(compute)
        options = ContextOptions(n_tokens=64, n_sequences=4, n_threads=1)
        scheduler = Scheduler(
            fake, name="t", options=options, layouts=Layouts.of_one(Layout(1, 1, 8))
        )
        made.append(scheduler)
        return Model(scheduler)

    yield model
    for scheduler in made:
        scheduler.close()


def encoding(*windows):
    ids = tuple(np.array(window, dtype=np.int32) for window in windows)
    return Encoding(ids, tuple(map(len, ids)), sum(map(len, ids)))


def window(start, *encodings):
    return Window(range(start, start + len(encodings)), encodings)


def rows(pipeline, *windows):
    return [found for _, found in pipeline.run(iter(windows))]


def test_windows_come_back_in_order_with_their_rows(make):
    meter, told = Meter(), []
    pipeline = Pipeline(make(), "none", Call(), on_rows=told.append, meter=meter)
    windows = [
        window(0, encoding([1]), encoding([2, 3, 4])),
        window(2, encoding([5, 6])),
        window(3, encoding([7]), encoding([8]), encoding([9])),
    ]
    run = list(pipeline.run(iter(windows)))
    assert [each for each, _ in run] == windows
    np.testing.assert_array_equal(
        np.concatenate([found for _, found in run]),
        [[1, 1], [9, 3], [11, 2], [7, 1], [8, 1], [9, 1]],
    )
    assert sum(told) == 6
    assert meter.n_computed_tokens == 9
    assert meter.inference_s > 0
    assert meter.queue_s > 0


def test_the_next_window_is_submitted_before_the_first_is_waited_for(make):
    read = []

    def windows():
        for number in range(4):
            read.append(number)
            yield window(number, encoding([number + 1]))

    run = Pipeline(make(), "none", Call()).run(windows())
    assert read == []
    next(run)
    assert read == [0, 1]
    next(run)
    assert read == [0, 1, 2]
    run.close()


def test_long_inputs_are_averaged_by_their_own_tokens(make):
    divided = Encoding(
        (np.array([3, 4], np.int32), np.array([5], np.int32)), n_own=(3, 1), n_tokens=3
    )
    told = []
    pipeline = Pipeline(make(), "none", Call(), on_rows=told.append)
    (found,) = rows(pipeline, window(0, encoding([9]), divided, encoding([8])))
    np.testing.assert_allclose(found, [[9, 1], [0.75 * 7 + 0.25 * 5, 1.75], [8, 1]])
    assert told == [3]
    (unit,) = rows(Pipeline(make(), "l2", Call()), window(0, divided))
    first, second = np.array([7, 2]) / 53**0.5, np.array([5, 1]) / 26**0.5
    mean = 0.75 * first + 0.25 * second
    np.testing.assert_allclose(unit[0], mean / np.linalg.norm(mean), rtol=1e-6)


def test_empty_windows_pass_without_inference(make):
    model = make(lambda batch: pytest.fail("nothing is to be computed"))
    found = rows(Pipeline(model, "l2", Call()), Window([], []), Window([], []))
    assert [each.shape for each in found] == [(0, 2), (0, 2)]


def test_rows_before_a_window_that_cannot_be_had_come_first(make):
    def windows():
        yield window(0, encoding([1]))
        yield window(1, encoding([2]))
        raise KeyError("the source")

    run = Pipeline(make(), "none", Call()).run(windows())
    assert next(run)[1][0, 0] == 1
    assert next(run)[1][0, 0] == 2
    with pytest.raises(KeyError, match="the source"):
        next(run)


def test_failures_are_named_by_the_places_of_their_owners(make):
    def refuse(batch):
        if 7 in batch.input_ids:
            raise DecodeError("scripted", status=-3)
        return sums(batch)

    # input 1 is in two windows of which one fails, and is at the caller's places 10 and 20
    places = {0: [5], 1: [10, 20], 2: [6]}
    pipeline = Pipeline(make(refuse), "none", Call(), places=places.__getitem__)
    batch = window(0, encoding([1] * 8), encoding([2] * 8, [7] * 8), encoding([3] * 8))
    with pytest.raises(BatchError, match=r"texts \[10, 20\] could.*scripted") as caught:
        rows(pipeline, batch)
    assert caught.value.failed_indices == (10, 20)
    assert isinstance(caught.value.__cause__, DecodeError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("divided", [False, True])
def test_bad_values_are_named_by_their_places(make, bad, divided):
    def spoil(batch):
        found = sums(batch)
        found[found[:, 0] == 7] = bad
        return found

    places = {0: [5], 1: [20, 10]}
    pipeline = Pipeline(make(spoil), "l2", Call(), places=places.__getitem__)
    second = encoding([2], [7]) if divided else encoding([7])
    with pytest.raises(EmbeddingGenerationError, match="infinity for text 10, 20, also") as caught:
        rows(pipeline, window(0, encoding([1]), second))
    assert caught.value.indices == (10, 20)
    assert caught.value.model == pipeline.model.facts.name


@pytest.fixture
def remembered(make):
    """A model, and what was submitted to it; cancelling is noted and not done."""
    model, submitted, cancelled = make(), [], []
    submit = model.scheduler.submit

    def remember(sequences, *, call):
        pending = submit(sequences, call=call)
        pending.cancel = lambda: cancelled.append(pending)
        submitted.append(pending)
        return pending

    model.scheduler.submit = remember
    return model, submitted, cancelled


def one_by_one(n):
    return (window(number, encoding([number + 1])) for number in range(n))


def test_a_run_that_is_left_takes_back_what_is_under_way(remembered):
    model, submitted, cancelled = remembered
    run = Pipeline(model, "none", Call()).run(one_by_one(9))
    next(run)
    next(run)
    run.close()
    assert len(submitted) == 3
    assert submitted[2] in cancelled
    assert submitted[0] not in cancelled


def test_a_listener_that_raises_ends_the_run_and_takes_back_what_is_under_way(remembered):
    model, submitted, cancelled = remembered

    def fail(n_rows):
        raise RuntimeError("no more")

    run = Pipeline(model, "none", Call(), on_rows=fail).run(one_by_one(9))
    with pytest.raises(RuntimeError, match="no more"):
        next(run)
    assert cancelled == submitted
    assert len(submitted) == 2


def test_a_stopwatch_adds_up_also_when_its_block_raises():
    meter = Meter()
    with Stopwatch(meter, "cache_s"):
        pass
    first = meter.cache_s
    with pytest.raises(ValueError, match="odd"), Stopwatch(meter, "cache_s"):
        raise ValueError("odd")
    assert 0 < first < meter.cache_s

import threading
import time

import numpy as np
import pytest

from embellama.bench.tune_speed import MEAN_TOKENS, Setting, SpeedMeter, Texts, Variant
from embellama.errors import ContextError, DecodeError
from embellama.testing import FakeModel
from embellama.types import Layout

OWN, OTHER = Variant(), Variant("BF16")
TEXTS = Texts(n_vocab=1000, limit=512, max_batch_requests=64)
PASS_S = 0.004


def slow_rows(batch):
    time.sleep(PASS_S)
    return np.ones((batch.n_sequences, 2), np.float32)


@pytest.fixture
def model():
    return FakeModel(slow_rows)


def meter_of(model, *, allowed_bytes=10**9):
    return SpeedMeter(lambda variant: model, TEXTS, allowed_bytes=allowed_bytes)


def test_the_works_have_their_lengths():
    for work in ("short", "long"):
        lengths = TEXTS.lengths(work)
        assert np.mean(lengths) == pytest.approx(MEAN_TOKENS[work], rel=0.05)
        assert min(lengths) < np.mean(lengths) < max(lengths)
    assert TEXTS.lengths("single") == [14]
    assert set(Texts(1000, 16, 64).lengths("long")) == {16}


def test_micro_batches_are_planned_for_the_layout():
    batches = TEXTS.batches("short", Layout(1, 1, 128))
    assert max(batch.n_tokens for batch in batches) <= 128
    assert sum(batch.n_sequences for batch in batches) == len(TEXTS.lengths("short"))
    assert max(int(batch.input_ids.max()) for batch in batches) < 1000
    few = Texts(1000, 512, 4).batches("short", Layout(1, 1, 1024))
    assert max(batch.n_sequences for batch in few) == 4


def test_the_rate_is_that_of_all_contexts_together(model):
    meter = meter_of(model)
    rates = {}
    for n_contexts in (1, 3):
        setting = Setting(OWN, Layout(n_contexts, 2, 256))
        rates[n_contexts] = meter.measure("short", setting, 0.1)
    meter.close()
    batches = TEXTS.batches("short", Layout(1, 1, 256))
    ideal = len(TEXTS.lengths("short")) / len(batches) / PASS_S
    assert 0.3 * ideal < rates[1] < 1.1 * ideal
    assert 1.5 < rates[3] / rates[1] < 4


def test_a_single_text_is_told_by_its_median(model):
    meter = meter_of(model)
    rate = meter.measure("single", Setting(OWN, Layout(1, 2, 256)), 0.05)
    meter.close()
    assert 0.3 / PASS_S < rate < 1.1 / PASS_S
    assert {batch.n_sequences for batch in model.contexts[0].batches} == {1}


def test_contexts_are_made_once_each_on_its_thread(model):
    meter = meter_of(model)
    setting = Setting(OWN, Layout(2, 3, 128))
    for _ in range(3):
        meter.measure("long", setting, 0.01)
    threads = {context.thread for context in model.contexts}
    assert len(model.contexts) == len(threads) == 2
    assert threading.current_thread() not in threads
    options = model.contexts[0].options
    assert (options.n_threads, options.n_sequences) == (3, 64)
    assert options.n_tokens == max(TEXTS.lengths("long"))
    meter.close()
    assert all(context.closed for context in model.contexts)
    assert not any(thread.is_alive() for thread in threads)


def test_contexts_that_take_too_much_memory_together_make_room(model):
    first, second = (Setting(OWN, Layout(2, 1, size)) for size in (128, 256))
    meter = meter_of(model, allowed_bytes=16 * 600)
    meter.measure("short", first, 0.001)
    meter.measure("short", second, 0.001)
    assert [context.closed for context in model.contexts] == [True, True, False, False]
    meter.measure("short", first, 0.001)
    assert len(model.contexts) == 6
    meter.close()


def test_a_context_that_cannot_be_made_closes_the_others(model):
    making = model.create_context

    def second_fails(options):
        if model.contexts:
            raise ContextError("no memory")
        return making(options)

    model.create_context = second_fails
    before = threading.active_count()
    with pytest.raises(ContextError, match="no memory"):
        meter_of(model).measure("short", Setting(OWN, Layout(3, 1, 256)), 0.01)
    assert [context.closed for context in model.contexts] == [True]
    assert threading.active_count() == before


def test_a_pass_that_fails_is_told_and_what_is_open_can_be_closed(model):
    meter = meter_of(model)
    setting = Setting(OWN, Layout(2, 1, 256))
    meter.measure("short", setting, 0.001)

    def fail(batch):
        raise DecodeError("refused", status=-1)

    model.compute = fail
    with pytest.raises(DecodeError):
        meter.measure("short", setting, 0.001)
    with pytest.raises(DecodeError):  # the first pass of a new context
        meter.measure("long", setting, 0.001)
    meter.close()
    assert all(context.closed for context in model.contexts)


def test_variants_have_their_own_models():
    models = {OWN: FakeModel(slow_rows), OTHER: FakeModel(slow_rows)}
    meter = SpeedMeter(models.__getitem__, TEXTS, allowed_bytes=10**9)
    for variant in models:
        meter.measure("short", Setting(variant, Layout(1, 1, 256)), 0.001)
    meter.close()
    assert [len(model.contexts) for model in models.values()] == [1, 1]

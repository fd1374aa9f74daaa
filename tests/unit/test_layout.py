"""Contexts and threads by settings, measurements, memory and cores."""

from dataclasses import replace

import pytest

from embellama import ModelConfig, layout
from embellama.config import MAX_CONTEXTS
from embellama.layout import share_cores
from embellama.memory_estimate import ModelShape, context_bytes
from embellama.types import Layout, Layouts

N_CORES = 4
SHAPE = ModelShape(
    weights_bytes=45_000_000,
    n_vocab=30_522,
    vocab_kind="bert",
    n_layer=6,
    n_embd=384,
    n_ff=1536,
    n_head=12,
    n_query=384,
    n_key=384,
    is_gated=False,
    is_rotary=False,
    n_masks=1,
    has_logits=True,
    has_cache=False,
    has_relative_bias=False,
    n_ctx=512,
)
TUNED = Layouts(Layout(2, 2, 256), Layout(1, 4, 1024), Layout(1, 3, 256))


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch):
    monkeypatch.setattr(layout, "available_cores", lambda *, physical: N_CORES if physical else 8)


def share(shape=SHAPE, *, tuned=None, on_gpu=False, **settings):
    return share_cores(ModelConfig(**settings), shape, tuned=tuned, on_gpu=on_gpu)


def test_by_default_many_texts_get_contexts_of_one_thread_and_one_text_gets_all_threads():
    got = share()
    many = Layout(N_CORES, 1, ModelConfig().max_batch_tokens)
    assert got.layouts == Layouts(many, many, replace(many, n_contexts=1, n_threads=N_CORES))
    assert got.source == "default"
    assert got.side_tokens >= got.layouts.max_batch_tokens


def test_threads_that_are_set_are_all_that_is_used():
    got = share(n_threads=3).layouts
    assert (got.short.n_contexts, got.short.n_threads, got.single.n_threads) == (3, 1, 3)
    assert share(n_threads=1).layouts.n_contexts == 1


def test_contexts_and_threads_that_are_set_are_taken_as_they_are():
    got = share(n_contexts=3, n_threads=2, max_batch_tokens=128)
    assert got.layouts == Layouts.of_one(Layout(3, 2, 128))
    assert (got.source, got.side_tokens) == ("explicit", None)


@pytest.mark.parametrize(("n_contexts", "n_threads"), [(1, 4), (2, 2), (3, 1), (9, 1)])
def test_contexts_that_are_set_share_the_cores(n_contexts, n_threads):
    got = share(n_contexts=n_contexts).layouts
    assert (got.short.n_contexts, got.short.n_threads) == (n_contexts, n_threads)
    assert got.short == got.long
    assert (got.single.n_contexts, got.single.n_threads) == (1, N_CORES)


def test_what_was_measured_is_taken_where_the_settings_leave_it_open():
    got = share(tuned=TUNED)
    assert (got.layouts, got.source) == (TUNED, "tuned")
    assert got.side_tokens >= 1024


def test_what_was_measured_is_measured_with_as_many_threads():
    assert share(tuned=TUNED, n_threads=4).layouts == TUNED


@pytest.mark.parametrize("settings", [{"max_batch_tokens": 128}, {"n_contexts": 2}])
def test_settings_overrule_what_was_measured(settings):
    got = share(tuned=TUNED, **settings)
    assert got.layouts == share(**settings).layouts
    assert got.source != "tuned"


def test_one_context_keeps_a_gpu_busy():
    assert share(on_gpu=True).layouts.n_contexts == 1
    assert share(tuned=TUNED, on_gpu=True).layouts == TUNED
    assert share(n_contexts=2, on_gpu=True).layouts.n_contexts == 2


def test_memory_limits_the_contexts_and_their_threads_go_to_the_others(monkeypatch):
    tokens = ModelConfig().max_batch_tokens
    two = 2 * context_bytes(SHAPE, ModelConfig(), tokens)
    monkeypatch.setattr(layout, "SIDE_BYTES", two - 1)
    got = share(replace(SHAPE, weights_bytes=1)).layouts
    assert (got.short.n_contexts, got.short.n_threads) == (2, 2)
    assert got.single == Layout(1, N_CORES, tokens)
    monkeypatch.setattr(layout, "SIDE_BYTES", 0)
    assert share(replace(SHAPE, weights_bytes=1)).layouts.long == Layout(1, N_CORES, tokens)


def test_contexts_may_take_as_much_as_large_weights(monkeypatch):
    monkeypatch.setattr(layout, "SIDE_BYTES", 0)
    assert share(replace(SHAPE, weights_bytes=10**11)).layouts.n_contexts == N_CORES


def test_contexts_that_are_set_are_made_whatever_memory_they_take(monkeypatch):
    monkeypatch.setattr(layout, "SIDE_BYTES", 0)
    assert share(replace(SHAPE, weights_bytes=1), n_contexts=8).layouts.n_contexts == 8


def test_side_contexts_grow_as_far_as_their_memory_goes(monkeypatch):
    config, shape = ModelConfig(), replace(SHAPE, n_ctx=8192, weights_bytes=1)
    limits = []
    for room_tokens in (512, 1024, 2048, 8192):
        room = (N_CORES - 1) * context_bytes(shape, config, room_tokens)
        monkeypatch.setattr(layout, "SIDE_BYTES", room)
        got = share(shape)
        used = (got.layouts.n_contexts - 1) * context_bytes(shape, config, got.side_tokens)
        assert used <= room
        limits.append(got.side_tokens)
    assert limits == sorted(limits)
    assert limits[0] < limits[-1] == 8192


def test_there_are_never_too_many_contexts(monkeypatch):
    monkeypatch.setattr(layout, "available_cores", lambda *, physical: 500)
    got = share(replace(SHAPE, weights_bytes=10**13)).layouts
    assert got.n_contexts == MAX_CONTEXTS


def test_token_rows_are_computed_by_one_context_with_the_threads_of_a_single_text():
    alone = share(tuned=TUNED).alone
    assert alone.layouts == Layouts.of_one(Layout(1, 3, 1024))
    assert alone.side_tokens is None

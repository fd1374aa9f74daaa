from embellama.bench.tune_layouts import candidate_layouts
from embellama.bench.tune_speed import Texts
from embellama.types import Layout

TEXTS = Texts(n_vocab=1000, limit=512, max_batch_requests=64)


def test_layouts_share_out_every_core_once():
    ways = candidate_layouts("short", Layout(8, 1, 256), TEXTS, n_cores=8)
    assert ways[0] == Layout(8, 1, 256)
    assert {(way.n_contexts, way.n_threads) for way in ways} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert {way.max_batch_tokens for way in ways} == {64, 128, 256, 512, 1024}
    assert [way.max_batch_tokens for way in ways[:4]] == [256] * 4


def test_cores_that_cannot_be_divided_stay_idle_rather_than_go_unmeasured():
    ways = candidate_layouts("short", Layout(7, 1, 256), TEXTS, n_cores=7)
    assert {(way.n_contexts, way.n_threads) for way in ways} == {(7, 1), (3, 2), (2, 3), (1, 7)}


def test_a_single_text_gets_one_context():
    ways = candidate_layouts("single", Layout(1, 6, 256), TEXTS, n_cores=6)
    assert ways == [Layout(1, n, 256) for n in (6, 3, 2, 1)]


def test_layouts_with_the_same_micro_batches_are_measured_once():
    short_limit = Texts(n_vocab=1000, limit=512, max_batch_requests=1)
    ways = candidate_layouts("short", Layout(2, 1, 256), short_limit, n_cores=2)
    assert ways == [Layout(2, 1, 256), Layout(1, 2, 256)]
    long = candidate_layouts("long", Layout(2, 1, 256), TEXTS, n_cores=2)
    assert {way.max_batch_tokens for way in long} == {256, 512, 1024}


def test_layouts_that_do_not_fit_are_left_out_but_for_the_default():
    ways = candidate_layouts(
        "short", Layout(4, 1, 256), TEXTS, n_cores=4, fits=lambda way: way.n_contexts < 3
    )
    assert ways[0] == Layout(4, 1, 256)
    assert all(way.n_contexts < 3 for way in ways[1:])

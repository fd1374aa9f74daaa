import time

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.bench.measuring import (
    Contest,
    Effort,
    Embedder,
    latency_of,
    measure_latencies,
    measure_speeds,
)
from embellama.errors import ConfigurationError, DecodeError, InvalidInputError, ModelLoadError
from embellama.testing import FakeBackend

EFFORT = Effort(n_rounds=3, round_s=0.2, n_singles=7, n_probes=1, max_texts=10)


class Scripted:
    """Stands in for an embedder: each type takes its own time, and one may fail at some call."""

    def __init__(self, seconds, failing=None):
        self.seconds = seconds
        self.failing = failing
        self.calls = []

    def embed(self, file_type, texts, kind="document"):
        self.calls.append((file_type, len(texts)))
        if self.failing == (file_type, self.calls.count((file_type, len(texts)))):
            raise DecodeError("it broke", status=-3)
        time.sleep(self.seconds[file_type] * len(texts))

    def embed_one(self, file_type, text):
        self.embed(file_type, [text])

    def count_tokens(self, file_type, texts):
        return 5 * len(texts), 0


def steps():
    told = []
    return told, lambda *step: told.append(step)


def test_the_order_of_turns_changes_and_a_failure_leaves():
    contest = Contest(["a", "b", "c"], {})
    orders = []
    for turn in range(20):
        order = []
        contest.each(order.append, turn=turn)
        orders.append("".join(order))
    assert len(set(orders)) == 6
    assert contest.running == ["a", "b", "c"]

    def fails(name):
        if name == "b":
            raise ModelLoadError("no room")
        return name.upper()

    assert contest.each(fails, turn=1) == {"c": "C", "a": "A"}
    assert (contest.running, contest.failed) == (["a", "c"], {"b": "no room"})
    assert Contest([], {}).each(fails, turn=3) == {}


@pytest.mark.parametrize("error", [ConfigurationError("no GPU"), InvalidInputError("blank")])
def test_what_no_type_can_help_is_raised(error):
    def fails(name):
        raise error

    contest = Contest(["a", "b"], {})
    with pytest.raises(type(error)):
        contest.each(fails)
    assert contest.failed == {}


def test_speeds_are_medians_of_interleaved_rounds_on_the_same_texts():
    embedder = Scripted({"slow": 0.004, "fast": 0.001})
    told, report = steps()
    texts = [str(n) for n in range(100)]
    found = measure_speeds(
        embedder, Contest(["slow", "fast"], {}), {"short": texts}, EFFORT, report
    )
    # as many as the slow one does in a round
    counts = {n for _, n in embedder.calls} - {12}
    (n,) = counts
    assert 4 < n <= 50
    order = [name for name, count in embedder.calls if count == n]
    assert [set(order[at : at + 2]) for at in (0, 2, 4)] == [{"slow", "fast"}] * 3
    slow, fast = found["slow"]["short"], found["fast"]["short"]
    # a sleep may take longer on a busy machine, never shorter
    assert slow.texts_per_s <= 250
    assert fast.texts_per_s <= 1000
    assert slow.tokens_per_s == pytest.approx(5 * slow.texts_per_s)
    assert slow.spread[0] <= slow.texts_per_s <= slow.spread[1]
    assert told[0] == ("measuring speed", 0, 3)
    assert told[-1] == ("measuring speed", 3, 3)


def test_a_type_that_breaks_between_rounds_is_left_out():
    embedder = Scripted({"a": 0.005, "b": 0.005}, failing=("b", 6))
    contest = Contest(["a", "b"], {})
    texts = list("abcd")  # no more than are tried: two calls for each kind, then the rounds
    found = measure_speeds(embedder, contest, {"short": texts, "long": texts}, EFFORT, steps()[1])
    assert list(found) == ["a"]
    assert contest.failed == {"b": "it broke"}
    assert set(found["a"]) == {"short", "long"}


def test_single_texts_are_timed_in_blocks():
    embedder = Scripted({"a": 0.002, "b": 0.001})
    found = measure_latencies(
        embedder, Contest(["a", "b"], {}), ["x", "y"], EFFORT, lambda *step: None
    )
    # seven in three rounds: three in each, and two to warm up
    assert [len(found[name].samples) for name in "ab"] == [9, 9]
    assert len(embedder.calls) == 2 * 3 * (3 + 2)
    assert 0.002 <= found["a"].p50 <= found["a"].p95 <= found["a"].p99


def test_percentiles():
    latency = latency_of([n / 100 for n in range(101)])
    assert (latency.p50, latency.p95, latency.p99) == pytest.approx((0.5, 0.95, 0.99))
    assert latency_of([2.0]).p99 == 2


def engine_with(path, **config):
    engine = EmbeddingEngine(backend=FakeBackend())
    engine.load_model(path, name="m", config=ModelConfig(n_threads=1, **config))
    return engine


def test_an_embedder_cuts_and_takes_the_prompts_there_are(tiny_path):
    prompts = {"query": "a a a ", "document": "b "}
    with engine_with(tiny_path) as engine:
        plain = Embedder(engine)
        assert plain.embed("m", ["a"]).shape == (1, 2)
        assert np.array_equal(plain.embed("m", ["a"]), plain.embed("m", ["a"], "query"))
        plain.embed_one("m", "a " * 100)
        assert plain.count_tokens("m", ["a", "a " * 100]) == (3 + 16, 1)
    with engine_with(tiny_path, prompts=prompts, normalization="none") as engine:
        prompted = Embedder(engine)
        lengths = [prompted.embed("m", ["a"], kind)[0, 0] for kind in ("query", "document")]
        assert lengths == [6, 4]

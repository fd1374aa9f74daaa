"""Laws of `Room`: what comes in goes out, and nobody is refused while there is room."""

from contextlib import ExitStack
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embellama.server import limits
from embellama.server.limits import MAX_RETRY_AFTER_S, Room
from embellama.server.problems import Problem
from embellama.server.rates import TokenBuckets

MAX_REQUESTS, MAX_WAIT_S = 20, 5.0

COMES = st.tuples(
    st.just("comes"),
    st.integers(1, 10_000),
    st.integers(1, 100),
    st.sampled_from(["interactive", "bulk"]),
    st.sampled_from(["one", "two"]),
)
GOES = st.tuples(st.just("goes"), st.integers(0, 30), st.booleans())
COMPUTES = st.tuples(st.just("computes"), st.integers(0, 30), st.integers(1, 5000))
PASSES = st.tuples(st.just("passes"), st.floats(0.0, 30.0))


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


def came(room, held, cost, n_texts, priority, model):
    before = (room.n_requests, room.n_texts, room.wait_s(priority))
    stack = ExitStack()
    problem = None
    try:
        on_computed = stack.enter_context(
            room.admitted(model, cost=cost, n_texts=n_texts, priority=priority)
        )
    except Problem as exc:
        problem = exc
    if problem is not None:
        assert problem.status == 503
        assert 1.0 <= problem.retry_after_s <= MAX_RETRY_AFTER_S
        assert before[0] >= MAX_REQUESTS or before[2] > MAX_WAIT_S
        assert (room.n_requests, room.n_texts) == before[:2]
    else:
        assert before[0] < MAX_REQUESTS
        assert before[2] <= MAX_WAIT_S
        held.append((stack, n_texts, on_computed))


def went(held, told, at, is_done):
    stack, _, on_computed = held.pop(at % len(held))
    told.append(on_computed)
    if is_done:
        stack.close()
        return
    with pytest.raises(KeyError), stack:
        raise KeyError


@settings(max_examples=300, deadline=None)
@given(st.lists(COMES | GOES | PASSES | COMPUTES, max_size=60))
def test_what_comes_in_goes_out_and_room_is_given_while_there_is_any(steps):
    clock, room = Clock(), Room(max_requests=MAX_REQUESTS, max_wait_s=MAX_WAIT_S)
    held, told = [], []  # also of requests that are over
    with patch.object(limits, "time", clock):
        for kind, *given_ in steps:
            if kind == "comes":
                came(room, held, *given_)
            elif kind == "goes" and held:
                went(held, told, *given_)
            elif kind == "computes" and (tells := [each[2] for each in held] + told):
                tells[given_[0] % len(tells)](given_[1])
            elif kind == "passes":
                clock.now += given_[0]
            assert room.n_requests == len(held)
            assert room.n_texts == sum(n_texts for _, n_texts, _ in held)
            assert 0.0 <= room.wait_s("interactive") <= room.wait_s("bulk") < float("inf")
        while held:
            went(held, told, 0, True)
    assert room.n_requests == room.n_texts == room._cost == 0
    assert room.wait_s() == 0.0


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.01, 100.0),
    st.integers(1, 50),
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=200),
)
def test_a_bucket_gives_no_more_than_its_burst_and_rate(rate, burst, gaps):
    buckets, now, n_taken, waits_s = TokenBuckets(rate, burst), 0.0, 0, []
    for gap in gaps:
        now += gap
        try:
            buckets.take("a", now=now)
            n_taken += 1
        except Problem as exc:
            waits_s.append(exc.retry_after_s)
    assert all(0.0 < wait_s <= 1.0 / rate + 1e-9 for wait_s in waits_s)
    assert n_taken <= burst + rate * now + 1e-6

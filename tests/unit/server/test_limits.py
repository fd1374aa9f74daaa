"""Room."""

import pytest

from embellama.server import limits
from embellama.server.limits import BODIES_AT_ONCE, FREE_BODY_BYTES, MAX_UNSENT_BYTES, Room
from embellama.server.problems import Problem


def test_one_request_more_than_the_limit_is_refused_and_says_when_to_come_again():
    room = Room(max_requests=2, max_wait_s=10.0)
    with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
        with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
            with (
                pytest.raises(Problem) as caught,
                room.admitted("m", cost=10, n_texts=1, priority="bulk"),
            ):
                pytest.fail("there was no room")
            assert (caught.value.status, caught.value.code) == (503, "overloaded")
            assert caught.value.retry_after_s >= 1.0
        with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
            assert room.n_requests == 2
    assert room.n_requests == room.n_texts == 0
    assert room.wait_s() == 0.0


def test_texts_that_wait_are_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr(limits, "MAX_WAITING_COST", 100)
    room = Room(max_requests=10, max_wait_s=10.0)
    with (
        room.admitted("m", cost=1000, n_texts=1, priority="bulk"),  # one alone is always taken
        pytest.raises(Problem, match="1,000 bytes wait"),
        room.admitted("m", cost=1, n_texts=1, priority="bulk"),
    ):
        pytest.fail("there was no room")


def test_large_bodies_share_their_memory_and_small_ones_always_come():
    limit = 10 * FREE_BODY_BYTES
    room = Room(max_requests=10, max_wait_s=10.0)
    with room.body(limit) as first:
        first(FREE_BODY_BYTES)
        assert room.n_body_bytes == 0
        for _ in range(3):
            first(limit)
        assert room.n_body_bytes == limit
        holding = [room.body(limit) for _ in range(BODIES_AT_ONCE - 1)]
        for body in holding:
            body.__enter__()(limit)
        assert room.n_body_bytes == BODIES_AT_ONCE * limit
        with pytest.raises(Problem, match="large bodies"), room.body(limit) as another:
            another(FREE_BODY_BYTES)
            another(FREE_BODY_BYTES + 1)
        for body in holding:
            body.__exit__(None, None, None)
    assert room.n_body_bytes == 0


# ── answers that nobody reads ───────────────────────────────────────────────────────────────


class Behind:
    """A transport whose client does not read."""

    def get_write_buffer_size(self):
        return MAX_UNSENT_BYTES // 2 + 1


def test_no_work_is_taken_while_too_much_is_not_read():
    room = Room(max_requests=1, max_wait_s=1.0)
    first, second = Behind(), Behind()
    room.unsent.add(first)
    room.check_unsent()
    room.unsent.add(second)
    with pytest.raises(Problem, match="not read by their clients") as found:
        room.check_unsent()
    assert (found.value.status, found.value.code) == (503, "overloaded")
    room.unsent.drop(first)
    room.unsent.drop(first)
    room.check_unsent()

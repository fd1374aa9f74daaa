"""Time limits of connections, on a clock of the test's own."""

import heapq
from itertools import count

import pytest

from embellama.server.patience import MIN_BYTES_PER_S, STEADY_BYTES_PER_S, Limit, ReadingClient


class Clock:
    """What of an event loop these timers use."""

    def __init__(self):
        self.now, self._calls, self._order = 0.0, [], count()

    def call_later(self, delay, called, *arguments):
        call = [self.now + delay, next(self._order), called, arguments]
        heapq.heappush(self._calls, call)
        return Handle(call)

    def run(self, seconds):
        end = self.now + seconds
        while self._calls and self._calls[0][0] <= end:
            self.now, _, called, arguments = heapq.heappop(self._calls)
            if called is not None:
                called(*arguments)
        self.now = end


class Handle:
    def __init__(self, call):
        self._call = call

    def cancel(self):
        self._call[2] = None


class Transport:
    """A buffer that a client reads, or does not."""

    def __init__(self, n_bytes):
        self.n_bytes, self.is_aborted = n_bytes, False

    def get_write_buffer_size(self):
        return self.n_bytes

    def abort(self):
        self.is_aborted = True


@pytest.fixture
def clock():
    return Clock()


def test_a_limit_runs_from_when_it_was_first_set(clock):
    passed = []
    limit = Limit(clock, lambda: passed.append(clock.now))
    limit.set(3.0)
    clock.run(2.0)
    limit.set(3.0)
    assert limit.is_running
    clock.run(2.0)
    assert passed == [3.0]
    assert not limit.is_running
    limit.set(1.0)
    limit.lift()
    limit.lift()
    clock.run(10.0)
    assert passed == [3.0]


def test_who_reads_nothing_is_ended(clock):
    transport = Transport(100_000)
    ReadingClient(clock, 10.0).watch(transport)
    clock.run(9.0)
    assert not transport.is_aborted
    clock.run(2.0)
    assert transport.is_aborted


def test_who_reads_slowly_is_waited_for_and_then_no_longer(clock):
    transport = Transport(10 * 10 * STEADY_BYTES_PER_S)
    reader = ReadingClient(clock, 10.0)
    reader.watch(transport)
    for _ in range(5):
        transport.n_bytes -= 10 * MIN_BYTES_PER_S
        reader.watch(transport)  # asked again meanwhile, which changes nothing
        clock.run(10.0)
        assert not transport.is_aborted
    transport.n_bytes -= 10 * MIN_BYTES_PER_S - 1
    clock.run(10.0)
    assert transport.is_aborted


def test_who_has_read_all_is_left_alone(clock):
    transport, reader = Transport(0), ReadingClient(clock, 10.0)
    reader.watch(transport)
    transport.n_bytes = 5
    clock.run(20.0)
    reader.watch(transport)
    reader.leave()
    clock.run(20.0)
    assert not transport.is_aborted


def test_a_whole_answer_has_its_time_however_steadily_it_is_read(clock):
    transport = Transport(2 * 10 * STEADY_BYTES_PER_S)
    reader = ReadingClient(clock, 10.0)
    reader.watch(transport)
    for _ in range(2):
        transport.n_bytes -= 20 * MIN_BYTES_PER_S
        clock.run(10.0)
        assert not transport.is_aborted
    transport.n_bytes -= 20 * MIN_BYTES_PER_S
    clock.run(10.0)
    assert transport.is_aborted

"""How fast a model works, learned from what it has done."""

import pytest

from embellama.server.pace import ENOUGH_TEXTS, Pace


class Simulated:
    """A server of a fixed speed that does requests one after the other."""

    def __init__(self, per_s):
        self.per_s = per_s
        self.pace = Pace()
        self.now = 0.0
        self.line = []

    def come(self, cost, n_texts=1):
        self.pace.came(cost, n_texts, "bulk", now=self.now)
        self.line.append((cost, n_texts, self.now))

    def run(self, seconds=float("inf")):
        end = self.now + seconds
        while self.line and self.now + self.line[0][0] / self.per_s <= end:
            cost, n_texts, came = self.line.pop(0)
            self.now += cost / self.per_s
            self.pace.went(cost, n_texts, "bulk", done_in_s=self.now - came, now=self.now)
        if end < float("inf"):
            self.now = max(self.now, end)


def test_nothing_is_known_before_there_was_enough_to_do():
    server = Simulated(per_s=1000.0)
    for _ in range(20):
        server.come(10)
        server.run()
        server.now += 1.0
    assert server.pace.per_s is None
    assert server.pace.wait_s("bulk") == 0.0


@pytest.mark.parametrize("per_s", [0.5, 50.0, 1e6])
def test_a_line_that_is_worked_off_shows_the_pace(per_s):
    server = Simulated(per_s)
    for _ in range(200):
        server.come(per_s / 50)
    server.run()
    assert server.pace.per_s == pytest.approx(per_s, rel=0.05)


def test_a_slow_model_is_known_after_a_few_long_texts():
    server = Simulated(per_s=100.0)
    server.come(200)  # one alone shows how fast the model is at least
    server.run()
    for _ in range(6):
        server.come(200)
    assert server.pace.n_texts < ENOUGH_TEXTS
    server.run(4.0)
    assert server.pace.per_s == pytest.approx(100.0, rel=0.01)
    assert server.pace.wait_s("bulk") == pytest.approx(8.0, rel=0.01)


def test_requests_that_end_together_count_together():
    pace = Pace()
    for _ in range(4):
        pace.came(1000, 64, "bulk", now=0.0)
    for _ in range(4):
        pace.went(1000, 64, "bulk", done_in_s=10.0, now=10.0)
    assert pace.per_s == pytest.approx(400.0)


def test_idle_time_is_no_slowness():
    server = Simulated(per_s=1000.0)
    for _ in range(3):
        for _ in range(100):
            server.come(20)
        server.run()
        server.now += 3600.0
    assert server.pace.per_s == pytest.approx(1000.0, rel=0.05)


def test_what_was_given_up_is_no_work_done():
    pace = Pace()
    for _ in range(100):
        pace.came(10, 1, "bulk", now=0.0)
    pace.went(10, 1, "bulk", done_in_s=1.0, now=1.0)
    for _ in range(99):
        pace.went(10, 1, "bulk", done_in_s=None, now=1.0)
    assert pace.per_s == pytest.approx(10.0)


def test_a_slow_moment_is_forgotten_although_little_is_let_in_after_it():
    server = Simulated(per_s=10.0)
    for _ in range(100):
        server.come(1)
    server.run()
    assert server.pace.per_s == pytest.approx(10.0, rel=0.05)
    server.per_s = 10_000.0
    for _ in range(300):
        while server.pace.wait_s("bulk") < 10.0:  # as a server lets in that is asked for more
            server.come(1)
        server.run(0.05)
    assert server.pace.per_s > 5_000.0


def test_interactive_work_waits_for_its_own_kind_alone():
    pace = Pace(per_s=10.0)
    pace.came(100, 1, "bulk", now=0.0)
    pace.came(20, 1, "interactive", now=0.0)
    assert pace.wait_s("interactive") == pytest.approx(2.0)
    assert pace.wait_s("bulk") == pytest.approx(12.0)

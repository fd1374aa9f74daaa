"""How fast a model works, learned from what it has done."""

import pytest

from embellama.server.pace import COST_A_TOKEN, ENOUGH_TEXTS, Pace, Work


class Simulated:
    """A server of a fixed speed that does requests one after the other."""

    def __init__(self, per_s):
        self.per_s = per_s
        self.pace = Pace()
        self.now = 0.0
        self.line = []

    def come(self, cost, n_texts=1):
        work = Work(cost, n_texts, "bulk")
        self.pace.came(work, now=self.now)
        self.line.append((work, self.now))

    def run(self, seconds=float("inf")):
        end = self.now + seconds
        while self.line and self.now + self.line[0][0].cost / self.per_s <= end:
            work, came = self.line.pop(0)
            self.now += work.cost / self.per_s
            self.pace.computed(work, work.cost / COST_A_TOKEN)
            self.pace.went(work, done_in_s=self.now - came, now=self.now)
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
    pace, works = Pace(), [Work(1000, 64, "bulk") for _ in range(4)]
    for work in works:
        pace.came(work, now=0.0)
    for work in works:
        pace.computed(work, 200)
        pace.went(work, done_in_s=10.0, now=10.0)
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
    pace, (first, *others) = Pace(), [Work(10, 1, "bulk") for _ in range(100)]
    for work in (first, *others):
        pace.came(work, now=0.0)
    pace.computed(first, 2)
    pace.went(first, done_in_s=1.0, now=1.0)
    for work in others:
        pace.went(work, done_in_s=None, now=1.0)
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
    pace = Pace(tokens_per_s=10.0 / COST_A_TOKEN)
    pace.came(Work(100, 1, "bulk"), now=0.0)
    pace.came(Work(20, 1, "interactive"), now=0.0)
    assert pace.wait_s("interactive") == pytest.approx(2.0)
    assert pace.wait_s("bulk") == pytest.approx(12.0)


# ── while requests are under way ────────────────────────────────────────────────────────────

TOKENS_PER_S = 2000


def test_one_long_request_shows_the_pace_and_how_much_of_it_is_left():
    """Nothing ends for twenty seconds."""
    pace, long = Pace(), Work(200_000, 1000, "bulk")  # 40,000 tokens
    pace.came(long, now=0.0)
    for tenth in range(1, 101):
        pace.computed(long, TOKENS_PER_S // 10)
        pace.look(tenth / 10)
    assert pace.wait_s("bulk") == pytest.approx(10.0, rel=0.05)
    assert pace.wait_s("interactive") == 0.0
    pace.went(long, done_in_s=20.0, now=20.0)
    assert pace.wait_s("bulk") == 0.0


@pytest.mark.parametrize("cost_a_token", [2.0, COST_A_TOKEN, 12.0])
def test_short_requests_beside_a_long_one_are_not_all_that_is_done(cost_a_token):
    pace, now = Pace(), 0.0
    long = Work(int(60 * TOKENS_PER_S * cost_a_token), 1000, "bulk")  # a minute of work
    pace.came(long, now=now)
    for second in range(30):
        short = Work(int(20 * cost_a_token), 1, "interactive")
        pace.came(short, now=now)
        for _ in range(10):
            now += 0.1
            pace.computed(long, TOKENS_PER_S // 10)
            pace.look(now)
        pace.computed(short, 20)
        pace.went(short, done_in_s=0.05, now=now)
        if second >= 5:
            left_s = 60.0 - now
            # what a token costs is known of short requests alone, until the long one ends
            assert 0.4 * left_s < pace.wait_s("bulk") < 2.5 * left_s


def test_what_a_token_costs_is_learned():
    pace, now = Pace(), 0.0
    for _ in range(20):
        work = Work(12_000, 64, "bulk")
        pace.came(work, now=now)
        now += 0.5
        pace.computed(work, 1000)
        pace.went(work, done_in_s=0.5, now=now)
    assert pace.cost_a_token == pytest.approx(12.0, rel=0.1)
    assert pace.per_s == pytest.approx(24_000, rel=0.05)


def test_vectors_from_a_cache_teach_nothing_of_tokens():
    pace, work = Pace(), Work(100_000, 64, "bulk")
    pace.came(work, now=0.0)
    pace.went(work, done_in_s=0.01, now=0.01)
    assert pace.cost_a_token == COST_A_TOKEN


def test_what_was_computed_for_a_request_that_is_over_counts_no_more():
    pace, work = Pace(), Work(1000, 1, "bulk")
    pace.came(work, now=0.0)
    pace.computed(work, 10)
    pace.went(work, done_in_s=None, now=1.0)
    pace.computed(work, 10)
    pace.look(2.0)
    assert pace.waiting == {"interactive": 0, "bulk": 0}
    assert (work.n_tokens, pace.n_texts) == (10, 0)


def test_requests_that_compute_nothing_show_nothing():
    """Vectors from a cache: else they would be the best that one request by itself has shown."""
    pace = Pace()
    for at in range(100):
        cached = Work(100_000, 64, "bulk")
        pace.came(cached, now=float(at))
        pace.went(cached, done_in_s=0.001, now=at + 0.001)
    assert (pace.tokens_per_s, pace._best_alone) == (None, 0.0)
    long, now = Work(1_200_000, 60, "bulk"), 1000.0  # 20 kB each
    pace.came(Work(10, 1, "interactive"), now=now)
    pace.came(long, now=now)
    pace.came(Work(10, 4, "bulk"), now=now)
    for _ in range(50):
        now += 0.1
        pace.computed(long, TOKENS_PER_S // 10)
        pace.look(now)
    left_s = (1_200_000 - cost_of(5.0)) / (TOKENS_PER_S * COST_A_TOKEN)
    assert pace.wait_s("bulk") == pytest.approx(left_s, rel=0.1)


def cost_of(seconds):
    return seconds * TOKENS_PER_S * COST_A_TOKEN


def test_one_request_of_repeated_texts_says_little_of_what_tokens_cost_and_many_say_it():
    pace, now = Pace(), 0.0

    def repeated():
        work = Work(20_000, 2048, "bulk")
        pace.came(work, now=now)
        pace.computed(work, 80)
        pace.went(work, done_in_s=0.1, now=now)

    for _ in range(100):
        work = Work(500, 1, "bulk")
        pace.came(work, now=now)
        pace.computed(work, 100)
        pace.went(work, done_in_s=0.1, now=now)
    repeated()
    assert pace.cost_a_token == pytest.approx(COST_A_TOKEN, rel=0.02)
    for _ in range(3000):
        repeated()
    assert pace.cost_a_token == pytest.approx(250.0, rel=0.1)

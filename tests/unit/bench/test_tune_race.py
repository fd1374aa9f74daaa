import math
import random

import pytest

from embellama.bench.tune_race import LONGEST_SLICE_S, race
from embellama.errors import ContextError


class Machine:
    """A clock, and rates by name that a measurement finds with noise, drift and a start-up cost."""

    def __init__(self, rates, *, noise=0.0, drift=0.0, starting_s=0.0, pass_s=0.0, seed=0):
        self.now = 100.0
        self.rates = rates
        self.slices = []
        self._noise, self._drift = noise, drift
        self._starting_s, self._pass_s = starting_s, pass_s
        self._random = random.Random(seed)
        self._started = set()

    def clock(self):
        return self.now

    def measure(self, name, seconds):
        rate = self.rates[name]
        if isinstance(rate, Exception):
            raise rate
        if name not in self._started:
            self._started.add(name)
            self.now += self._starting_s
        self.slices.append((name, seconds))
        self.now += max(seconds, self._pass_s)
        weather = 1 + self._drift * math.sin(self.now / 3)
        return rate * weather * math.exp(self._random.gauss(0, self._noise))

    def race(self, **options):
        return race(list(self.rates), self.measure, clock=self.clock, **options)


def grid(best, *, n=13, seed=0):
    """Give rates up to a fifth apart, the best one somewhere."""
    chooser = random.Random(seed)
    rates = {f"c{index}": 100 * chooser.uniform(0.6, 1) for index in range(n)}
    rates[best] = 105.0
    return rates


@pytest.mark.parametrize("best", ["c0", "c1", "c6", "c12"])
def test_the_fastest_of_a_quiet_table_is_found(best):
    machine = Machine(grid(best))
    result = machine.race(budget_s=10)
    assert result.best == best
    assert result.gains[best] == pytest.approx(105 / machine.rates["c0"])
    assert result.rates["c0"] == pytest.approx(machine.rates["c0"])


def test_noise_and_drift_cost_no_more_than_a_few_per_cent():
    lost = []
    for seed in range(60):
        machine = Machine(grid("c9", seed=seed), noise=0.08, drift=0.3, starting_s=0.05, seed=seed)
        result = machine.race(budget_s=24)
        lost.append(1 - machine.rates[result.best] / 105)
        assert lost[-1] < 0.05
    assert sum(lost) / len(lost) < 0.01


@pytest.mark.parametrize(("pass_s", "budget_s"), [(0.001, 1.0), (0.05, 5.0), (0.5, 20.0)])
def test_the_budget_is_kept(pass_s, budget_s):
    machine = Machine(grid("c3"), noise=0.05, starting_s=0.02, pass_s=pass_s)
    machine.race(budget_s=budget_s)
    spent = machine.now - 100
    assert 0.5 * budget_s < spent < 1.1 * budget_s


def test_what_there_was_no_time_for_is_named():
    machine = Machine(grid("c12"), pass_s=1.0)
    result = machine.race(budget_s=4.5)
    assert machine.now - 100 < 4.5 * 1.1
    assert len(result.rates) == 4
    assert result.dropped.keys() == set(machine.rates) - set(result.rates)
    assert "time was used up" in result.dropped["c12"]


def test_small_candidates_go_first_when_time_is_short():
    machine = Machine(grid("c5"), pass_s=1.0)
    result = race(
        list(machine.rates),
        machine.measure,
        budget_s=4.5,
        clock=machine.clock,
        size_of=lambda name: 20.0 - int(name[1:]),
    )
    assert set(result.rates) == {"c0", "c12", "c11", "c10"}


def test_no_time_at_all_measures_the_default():
    machine = Machine(grid("c5"), pass_s=1.0)
    result = machine.race(budget_s=0)
    assert (result.best, set(result.rates)) == ("c0", {"c0"})


def test_one_that_is_slow_beyond_measure_does_not_end_the_race():
    class Stuck(Machine):
        def measure(self, name, seconds):
            if name == "c1":
                self.now += 3
            return super().measure(name, seconds)

    machine = Stuck({**grid("c7"), "c1": 0.1})
    assert machine.race(budget_s=12).best == "c7"


def test_a_tie_goes_to_the_earlier_one():
    machine = Machine({"default": 100.0, "b": 100.2, "c": 90.0, "d": 100.3}, noise=0.02)
    assert machine.race(budget_s=10).best == "default"
    machine = Machine({"default": 80.0, "simple": 100.0, "c": 100.2, "d": 60.0}, noise=0.02)
    assert machine.race(budget_s=10).best == "simple"


def test_a_clear_gain_is_no_tie():
    machine = Machine({"default": 100.0, "b": 104.0}, noise=0.05)
    assert machine.race(budget_s=20).best == "b"


def test_a_candidate_without_memory_is_dropped_with_its_reason():
    machine = Machine({"default": 90.0, "large": ContextError("no memory"), "b": 100.0})
    result = machine.race(budget_s=5)
    assert result.best == "b"
    assert result.dropped == {"large": "no memory"}
    assert "large" not in result.gains


def test_a_default_that_does_not_run_is_an_error():
    machine = Machine({"default": ContextError("no memory"), "b": 100.0})
    with pytest.raises(ContextError, match="no memory"):
        machine.race(budget_s=5)


def test_a_candidate_that_fails_later_leaves_the_race():
    class Failing(Machine):
        def measure(self, name, seconds):
            if name == "b" and sum(one == "b" for one, _ in self.slices) == 2:
                raise ContextError("gone")
            return super().measure(name, seconds)

    result = Failing({"default": 90.0, "b": 200.0, "c": 100.0}).race(budget_s=5)
    assert result.best == "c"
    assert result.dropped == {"b": "gone"}


def test_half_go_after_each_stage_and_the_default_stays():
    machine = Machine({f"c{index}": 100.0 + index for index in range(16)})
    result = machine.race(budget_s=40)
    n_slices = {name: sum(one == name for one, _ in machine.slices) for name in machine.rates}
    assert n_slices["c0"] == n_slices["c15"] == max(n_slices.values()) == result.n_rounds
    assert n_slices["c1"] < n_slices["c10"] < n_slices["c13"] < n_slices["c14"]
    assert max(seconds for _, seconds in machine.slices) <= LONGEST_SLICE_S


def test_rounds_are_shuffled():
    machine = Machine({f"c{index}": 100.0 + index for index in range(3)})
    machine.race(budget_s=10)
    names = [name for name, _ in machine.slices]
    rounds = {tuple(names[at : at + 3]) for at in range(0, len(names), 3)}
    assert len(rounds) == 2
    assert {one[0] for one in rounds} == {"c0"}

import math
import random
from itertools import product

import pytest

from embellama.bench.tune_layouts import candidate_layouts
from embellama.bench.tune_search import Search
from embellama.bench.tune_speed import Setting, Texts, Variant
from embellama.errors import ContextError
from embellama.tuning import WORKS, default_layouts

OWN = Variant()
BF16, Q4 = Variant("BF16"), Variant("Q4_0")
COSINES = {BF16: 0.99999, Q4: 0.966}
TEXTS = Texts(n_vocab=1000, limit=512, max_batch_requests=64)


class Machine:
    """A clock, and a cost table that a measurement reads with noise and drift."""

    def __init__(self, rate_of, *, noise=0.03, drift=0.2, seed=0, pass_s=0.0):
        self.now = 0.0
        self.n_measured = 0
        self._rate_of, self._noise, self._drift, self._pass_s = rate_of, noise, drift, pass_s
        self._random = random.Random(seed)

    def clock(self):
        return self.now

    def measure(self, work, setting, seconds):
        self.n_measured += 1
        self.now += max(seconds, self._pass_s)
        weather = 1 + self._drift * math.sin(self.now / 5)
        noise = math.exp(self._random.gauss(0, self._noise))
        return self._rate_of(work, setting) * weather * noise


def table(seed=0, variants=None):
    """Make up a smooth cost for each layout, with an optimum somewhere in the grid."""
    chooser = random.Random(seed)
    best = {
        work: (chooser.choice((1, 2, 4, 8)), chooser.choice((64, 128, 256, 512, 1024)))
        for work in WORKS
    }
    gains = {OWN: 1.0, **(variants or {})}

    def rate_of(work, setting):
        n_contexts, n_tokens = best[work]
        layout = setting.layout
        far = abs(math.log2(layout.n_contexts / n_contexts))
        far_tokens = abs(math.log2(layout.max_batch_tokens / n_tokens))
        if work == "single":
            far, far_tokens = abs(math.log2(layout.n_threads / 4)), 0
        return 1000 * 0.85**far * 0.93**far_tokens * gains[setting.variant]

    return rate_of


def grid(n_cores=8):
    defaults = default_layouts(n_cores, 256)
    return {
        work: candidate_layouts(work, getattr(defaults, work), TEXTS, n_cores=n_cores)
        for work in WORKS
    }


def setting_of(layout, variant=OWN):
    return Setting(variant, layout)


def search(machine, *, budget_s=60, others=(), missing=None, may_take=lambda one: False):
    steps = []
    found = Search(
        grid(),
        OWN,
        machine.measure,
        budget_s=budget_s,
        clock=machine.clock,
        on_step=steps.append,
    ).run(others, missing=missing or {}, least_cosine=COSINES.get, may_take=may_take)
    return found, steps


@pytest.mark.parametrize("seed", range(12))
def test_the_chosen_layouts_are_near_the_best_of_all(seed):
    rate_of = table(seed)
    machine = Machine(rate_of, seed=seed)
    found, _ = search(machine)
    for work, layouts in grid().items():
        rates = {one: rate_of(work, setting_of(one)) for one in layouts}
        assert rates[found.works[work].best] >= 0.95 * max(rates.values())


@pytest.mark.parametrize(
    ("budget_s", "pass_s"), [*product((10, 60), (0.001, 0.03, 0.2)), (60, 1.0)]
)
def test_the_budget_is_kept_over_all_races(budget_s, pass_s):
    machine = Machine(table(3, {BF16: 1.2, Q4: 1.4}), pass_s=pass_s)
    found, _ = search(machine, budget_s=budget_s, others=[BF16, Q4], may_take=lambda one: True)
    assert found.spent_s == pytest.approx(machine.now)
    assert machine.now <= 1.1 * budget_s
    assert machine.now >= 0.6 * budget_s


def test_a_gain_is_told_as_it_is():
    rate_of = table(5)
    found, _ = search(Machine(rate_of))
    for work, one in found.works.items():
        true = rate_of(work, setting_of(one.best)) / rate_of(work, setting_of(one.default))
        assert one.measured.gain == pytest.approx(true, rel=0.03)


def test_where_nothing_differs_the_defaults_stay():
    found, _ = search(Machine(lambda work, setting: 100.0))
    for one in found.works.values():
        assert one.best == one.default
        assert one.measured.gain == 1.0


def test_other_variants_are_told_and_not_taken():
    found, _ = search(Machine(table(1, {BF16: 1.3, Q4: 1.5})), others=[BF16, Q4])
    assert found.variant == OWN
    bf16, q4 = found.variants
    assert (bf16.gain, q4.gain) == (pytest.approx(1.3, rel=0.03), pytest.approx(1.5, rel=0.03))
    assert (bf16.least_cosine, q4.least_cosine) == (0.99999, 0.966)


def test_a_variant_that_may_be_taken_is():
    found, _ = search(
        Machine(table(1, {BF16: 1.3, Q4: 1.5})),
        others=[BF16, Q4],
        may_take=lambda one: one.least_cosine >= 0.999,
        budget_s=120,
    )
    assert found.variant == BF16
    rate_of = table(1, {BF16: 1.3})
    for work, one in found.works.items():
        default = rate_of(work, setting_of(one.default))
        chosen = rate_of(work, setting_of(one.best, BF16))
        assert one.measured.gain == pytest.approx(chosen / default, rel=0.03)


def test_a_variant_that_gains_next_to_nothing_is_not_taken():
    machine = Machine(table(1, {BF16: 1.01}))
    found, _ = search(machine, others=[BF16], may_take=lambda one: True)
    assert found.variant == OWN


def test_variants_that_could_not_be_made_are_told():
    found, _ = search(Machine(table(1)), missing={Q4: "no room"})
    (one,) = found.variants
    assert (one.variant, one.failed, one.gain) == (Q4, "no room", 0.0)


def test_a_layout_without_memory_is_dropped_and_named():
    rate_of = table(2)

    def with_limit(work, setting):
        if setting.layout.max_batch_tokens > 256:
            raise ContextError("no memory")
        return rate_of(work, setting)

    found, _ = search(Machine(with_limit))
    dropped = found.works["short"].dropped
    assert set(dropped.values()) == {"no memory"}
    assert all(layout.max_batch_tokens > 256 for layout in dropped)
    assert found.works["short"].best.max_batch_tokens <= 256


def test_a_tiny_budget_measures_the_defaults_and_ends():
    machine = Machine(table(1, {BF16: 2.0}), pass_s=1.0)
    found, _ = search(machine, budget_s=1, others=[BF16], may_take=lambda one: True)
    assert [one.best for one in found.works.values()] == [
        one.default for one in found.works.values()
    ]
    assert machine.n_measured == len(WORKS)


def test_a_variant_that_does_not_run_is_told_with_its_reason():
    rate_of = table(1, {BF16: 1.1})

    def refusing(work, setting):
        if setting.variant == Q4:
            raise ContextError("not supported")
        return rate_of(work, setting)

    found, _ = search(Machine(refusing), others=[Q4, BF16])
    q4, bf16 = found.variants
    assert (q4.failed, q4.gains, q4.least_cosine) == ("not supported", {}, None)
    assert bf16.failed is None

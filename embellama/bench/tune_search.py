"""The search for the fastest settings: layouts first, then variants, then the proof of both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embellama.bench.tune_race import SPENT, Result, race
from embellama.bench.tune_speed import Setting, Variant
from embellama.tuning import WORKS, Measured, Work
from embellama.types import Layout

MeasureSetting = Callable[[Work, Setting, float], float]
"""Measures a setting at a work for about so many seconds; returns texts a second."""

WORK_SHARES: Mapping[Work, float] = {"short": 0.4, "long": 0.45, "single": 0.15}
LAYOUT_SHARE = 0.55
VARIANT_SHARE = 0.25
AGAIN_SHARE = 0.4
"""For the layouts of another variant, where one may be taken; of the others' whole."""

PROOF_SHARE = 0.2
LEAST_GAIN = 1.02
"""What another variant has to be worth, over all works, to be taken."""

ONE_CANDIDATE_S = 1.0
"""For a speed that decides nothing."""


@dataclass(frozen=True, slots=True)
class WorkFindings:
    """What was found for a kind of work.

    Attributes:
        default: What is done where nothing was measured.
        best: What to do: the default unless something was faster beyond the noise.
        measured: Both speeds, interleaved.
        texts_per_s: Of every layout that was measured, on the model as it is.
        dropped: Layouts that could not be measured, and why.
        n_rounds: How often default and best were compared.
    """

    default: Layout
    best: Layout
    measured: Measured
    texts_per_s: Mapping[Layout, float]
    dropped: Mapping[Layout, str]
    n_rounds: int


@dataclass(frozen=True, slots=True)
class VariantFindings:
    """What another file type, or other attention, would do. It changes the vectors.

    Attributes:
        variant: What was measured.
        gains: Speed over the model as it is, under the same layout, by work.
        least_cosine: Of its vectors of a few texts to the model's own; None where not known.
        failed: Why it was not measured.
    """

    variant: Variant
    gains: Mapping[Work, float]
    least_cosine: float | None = None
    failed: str | None = None

    @property
    def gain(self) -> float:
        """Over all works: their geometric mean; 0 where it was not measured."""
        if set(self.gains) != set(WORKS):
            return 0.0
        return math.prod(self.gains.values()) ** (1 / len(WORKS))


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        works: By kind of work.
        variants: What else was measured.
        variant: What to use: the model as it is unless another may be taken and is faster.
        spent_s: Seconds of measuring.
    """

    works: Mapping[Work, WorkFindings]
    variants: tuple[VariantFindings, ...]
    variant: Variant
    spent_s: float


class Search:
    """Runs the races of one model within a time.

    Args:
        layouts: Candidates by work, in order of preference, the default first.
        own: The model as it is.
        measure: See `MeasureSetting`.
        budget_s: Seconds for all races together; each gets its share of what the others left.
        clock: Seconds.
        on_step: Told what comes next.
        after_race: Called after each race, to free what it needed.
    """

    def __init__(
        self,
        layouts: Mapping[Work, Sequence[Layout]],
        own: Variant,
        measure: MeasureSetting,
        *,
        budget_s: float,
        clock: Callable[[], float] = time.perf_counter,
        on_step: Callable[[str], None] = lambda _: None,
        after_race: Callable[[], None] = lambda: None,
    ) -> None:
        self._layouts = layouts
        self._own = own
        self._measure = measure
        self._clock = clock
        self._say = on_step
        self._after_race = after_race
        self._left_s = self._budget_s = budget_s
        self._shares_left = 0.0
        self._costs_s: dict[Work, float] = {}

    def run(
        self,
        others: Sequence[Variant],
        *,
        missing: Mapping[Variant, str],
        least_cosine: Callable[[Variant], float | None],
        may_take: Callable[[VariantFindings], bool],
    ) -> Found:
        """Find the layouts, look at other variants, and measure once more what was chosen.

        Args:
            others: Variants beside the model's own.
            missing: Variants that cannot be measured, and why.
            least_cosine: Tells a variant's fidelity; its time is not counted.
            may_take: Whether a variant may be used if it is faster.
        """
        may_change = any(may_take(VariantFindings(one, {}, 1.0)) for one in others)
        again = AGAIN_SHARE if may_change else 0.0
        self._shares_left = LAYOUT_SHARE + PROOF_SHARE + again + (VARIANT_SHARE if others else 0)
        races = {work: self._race_layouts(work, self._own, LAYOUT_SHARE) for work in WORKS}
        best = {work: result.best.layout for work, result in races.items()}
        gains, failed = self._race_variants(others, best)
        variants = [
            VariantFindings(one, gains[one], least_cosine(one))
            if gains[one]
            else VariantFindings(one, {}, failed=failed.get(one, SPENT))
            for one in others
        ]
        variant = self._choose(variants, may_take)
        if variant != self._own:
            again_found = {work: self._race_layouts(work, variant, again) for work in WORKS}
            best = {work: result.best.layout for work, result in again_found.items()}
        else:
            for work in WORKS:
                self._leave_out(work, again)
        return Found(
            works={work: self._proved(work, variant, best[work], races[work]) for work in WORKS},
            variants=(
                *variants,
                *(VariantFindings(one, {}, failed=why) for one, why in missing.items()),
            ),
            variant=variant,
            spent_s=self._budget_s - self._left_s,
        )

    def _choose(
        self, variants: Sequence[VariantFindings], may_take: Callable[[VariantFindings], bool]
    ) -> Variant:
        worth = [one for one in variants if one.gain >= LEAST_GAIN and may_take(one)]
        if not worth:
            return self._own
        return max(worth, key=lambda one: one.gain).variant

    def _race_layouts(self, work: Work, variant: Variant, share: float) -> Result[Setting]:
        candidates = [Setting(variant, layout) for layout in self._layouts[work]]
        return self._race(work, candidates, share, f"{work}: {len(candidates)} layouts")

    def _race_variants(
        self, others: Sequence[Variant], best: Mapping[Work, Layout]
    ) -> tuple[dict[Variant, dict[Work, float]], dict[Variant, str]]:
        """Return what each gains, by work, and why some were not measured."""
        gains: dict[Variant, dict[Work, float]] = {one: {} for one in others}
        failed: dict[Variant, str] = {}
        for work in WORKS if others else ():
            candidates = [Setting(one, best[work]) for one in (self._own, *others)]
            step = f"{work}: {len(others)} other types and kinds of attention"
            if not self._is_time(work, VARIANT_SHARE):
                self._leave_out(work, VARIANT_SHARE)
                continue
            result = self._race(work, candidates, VARIANT_SHARE, step)
            for setting, gain in result.gains.items():
                if setting.variant != self._own:
                    gains[setting.variant][work] = gain
            failed |= {setting.variant: why for setting, why in result.dropped.items()}
        return gains, failed

    def _proved(
        self, work: Work, variant: Variant, layout: Layout, first: Result[Setting]
    ) -> WorkFindings:
        """Measure the chosen setting against the default once more: a winner had luck too."""
        default = Setting(self._own, self._layouts[work][0])
        chosen = Setting(variant, layout)
        rate, n_rounds = first.rates[default], first.n_rounds
        measured = Measured(rate, rate, 1.0)
        if chosen != default and self._is_time(work, PROOF_SHARE):
            result = self._race(work, [default, chosen], PROOF_SHARE, f"{work}: the proof")
            # another variant is the model's for all works: it stays where it gains nothing
            chosen = result.best if variant == self._own else chosen
            rate = result.rates[default]
            measured = Measured(rate, result.rates.get(chosen, rate), result.gains.get(chosen, 1.0))
            n_rounds = result.n_rounds
        else:
            self._leave_out(work, PROOF_SHARE)
            if chosen in first.gains:
                measured = Measured(rate, first.rates[chosen], first.gains[chosen])
        return WorkFindings(
            default=default.layout,
            best=chosen.layout,
            measured=measured,
            texts_per_s={one.layout: rate for one, rate in first.rates.items()},
            dropped={one.layout: why for one, why in first.dropped.items()},
            n_rounds=n_rounds,
        )

    def _is_time(self, work: Work, share: float) -> bool:
        """Tell whether a race of this share could measure more than its first candidate."""
        return self._budget_of(work, share) > 2 * self._costs_s[work]

    def _budget_of(self, work: Work, share: float) -> float:
        return max(self._left_s, 0.0) * min(share * WORK_SHARES[work] / self._shares_left, 1.0)

    def _leave_out(self, work: Work, share: float) -> None:
        """Let the races that are left have the share of one that is over, or will not be run."""
        self._shares_left = max(self._shares_left - share * WORK_SHARES[work], 1e-9)

    def _race(
        self, work: Work, candidates: Sequence[Setting], share: float, step: str
    ) -> Result[Setting]:
        budget_s = self._budget_of(work, share)
        if len(candidates) == 1:
            budget_s = min(budget_s, ONE_CANDIDATE_S)
        self._leave_out(work, share)
        self._say(f"{step}, {budget_s:.0f} s")
        start = self._clock()
        try:
            result = race(
                candidates,
                lambda setting, seconds: self._measure(work, setting, seconds),
                budget_s=budget_s,
                size_of=lambda one: one.layout.n_contexts * one.layout.max_batch_tokens,
                clock=self._clock,
            )
        finally:
            self._after_race()
            self._left_s -= self._clock() - start
        self._costs_s[work] = result.cost_s
        return result

"""How fast a model works when there is enough to do, learned from what it has done."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from embellama.types import Priority

ENOUGH_TEXTS = 64
"""Texts that have to be there all the time for a pace to be that of a server with work to do.

Fewer do not fill the micro-batches of several contexts, and say nothing about what it can do.
"""

ENOUGH_S = 1.0
"""As good a sign of work to do is this much of it, in seconds, where texts are few and long."""

MEASURED_S = 0.25
"""Least time over which a pace is measured."""

MEMORY_S = 2.0
"""After this time with work to do, what was seen before has lost most of its weight."""


@dataclass
class Pace:
    """What of one model waits or is being computed, and how long that will take.

    Work done and time with enough of it to do are added up, both fading with that time, and their
    ratio is the pace. Thus requests that end together count together, idle times do not count, and
    a slow moment is forgotten as soon as there is work again.

    Attributes:
        enough_s: Seconds of work that are enough to measure by.
        waiting: Cost of what is there, by priority.
        n_texts: Texts of it.
        per_s: Cost that is done in a second; None: nobody knows yet.
    """

    enough_s: float = ENOUGH_S
    waiting: dict[Priority, int] = field(default_factory=lambda: {"interactive": 0, "bulk": 0})
    n_texts: int = 0
    per_s: float | None = None
    _best_alone: float = 0.0
    _done: float = 0.0
    _busy_s: float = 0.0
    _since: float | None = None

    def came(self, cost: int, n_texts: int, priority: Priority, *, now: float) -> None:
        """Note work that begins to wait."""
        self._pass(now)
        self.waiting[priority] += cost
        self.n_texts += n_texts
        self._look(now)

    def went(
        self, cost: int, n_texts: int, priority: Priority, *, done_in_s: float | None, now: float
    ) -> None:
        """Note its end, and the seconds since it came if it was done and not given up."""
        self._pass(now)
        self.waiting[priority] -= cost
        self.n_texts -= n_texts
        if done_in_s is not None:
            self._best_alone = max(self._best_alone, cost / max(done_in_s, 1e-6))
            if self._since is not None:
                self._done += cost
                if self._busy_s >= MEASURED_S:
                    self.per_s = self._done / self._busy_s
        self._look(now)

    def wait_s(self, priority: Priority) -> float:
        """Estimate how long work of a priority that comes now has to wait."""
        if self.per_s is None:
            return 0.0
        ahead = self.waiting["interactive"]
        if priority == "bulk":
            ahead += self.waiting["bulk"]
        return ahead / self.per_s

    def _pass(self, now: float) -> None:
        if self._since is None:
            return
        elapsed = max(now - self._since, 0.0)
        kept = math.exp(-elapsed / MEMORY_S)
        self._done *= kept
        self._busy_s = self._busy_s * kept + elapsed
        self._since = now

    def _look(self, now: float) -> None:
        """Measure from now on, or no longer."""
        # one request by itself is no faster than the server: what it shows is a least pace
        least = self.per_s or self._best_alone
        is_enough = self.n_texts >= ENOUGH_TEXTS or (
            least > 0.0 and sum(self.waiting.values()) >= self.enough_s * least
        )
        if not is_enough:
            self._since = None
        elif self._since is None:
            self._since = now

"""How fast a model works when there is enough to do, learned from what it has done."""

from __future__ import annotations

import math
from collections import deque
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

COST_A_TOKEN = 5.0
"""Cost of a token before it is known: the letters of an English one, and a part of its text's."""

MAX_STEP = 2.0
"""What a request's tokens may seem to cost, to what was known of it."""

MEMORY_TOKENS = 10_000.0
"""After so many tokens, what was known of their cost has lost most of its weight."""


@dataclass(eq=False)
class Work:
    """A request that computes or waits.

    Attributes:
        cost: How much work it is, in a unit that all share.
        n_texts: Its texts.
        priority: How urgent it is.
        n_tokens: Its tokens that were computed.
        done: The part of the cost that counts as done.
        is_over: Whether it ended.
    """

    cost: int
    n_texts: int
    priority: Priority
    n_tokens: int = 0
    done: int = 0
    is_over: bool = False


@dataclass
class Pace:
    """What of one model waits or is being computed, and how long that will take.

    Computed tokens and time with enough of them to do are added up, both fading with that time, and
    their ratio is the pace. Tokens count with each micro-batch: a request may take longer than what
    is remembered, and short ones that pass it would be taken for all that the model can do. Idle
    times do not count, and a slow moment is forgotten as soon as there is work again. Requests
    whose vectors were in a cache show nothing.

    Attributes:
        enough_s: Seconds of work that are enough to measure by.
        waiting: Cost of what is there and not done, by priority.
        n_requests: Requests of it.
        n_texts: Texts of it.
        tokens_per_s: Tokens that are computed in a second; None: nobody knows yet.
    """

    enough_s: float = ENOUGH_S
    waiting: dict[Priority, int] = field(default_factory=lambda: {"interactive": 0, "bulk": 0})
    n_requests: int = 0
    n_texts: int = 0
    tokens_per_s: float | None = None
    _known_tokens: float = 50.0  # as if a few texts had been seen: the first one may be odd
    _known_cost: float = 50.0 * COST_A_TOKEN
    _best_alone: float = 0.0
    _n_tokens: float = 0.0
    _busy_s: float = 0.0
    _since: float | None = None
    _computed: deque[tuple[Work, int]] = field(default_factory=deque)

    @property
    def cost_a_token(self) -> float:
        """What a token costs; requests have costs before their tokens are counted."""
        return self._known_cost / self._known_tokens

    @property
    def per_s(self) -> float | None:
        """Cost that is done in a second; None: nobody knows yet."""
        return None if self.tokens_per_s is None else self.tokens_per_s * self.cost_a_token

    def came(self, work: Work, *, now: float) -> None:
        """Note work that begins to wait."""
        self.look(now)
        self.waiting[work.priority] += work.cost
        self.n_requests += 1
        self.n_texts += work.n_texts
        self._begin_or_end(now)

    def computed(self, work: Work, n_tokens: int) -> None:
        """Note tokens that a micro-batch had of it. From any thread; all else is for one."""
        self._computed.append((work, n_tokens))

    def went(self, work: Work, *, done_in_s: float | None, now: float) -> None:
        """Note its end, and the seconds since it came if it was done and not given up."""
        self.look(now)
        work.is_over = True
        self.n_requests -= 1
        self.n_texts -= work.n_texts
        self.waiting[work.priority] -= work.cost - work.done
        if done_in_s is not None and work.n_tokens:
            self._best_alone = max(self._best_alone, work.n_tokens / max(done_in_s, 1e-6))
            self._learn(work)
        self._begin_or_end(now)

    def wait_s(self, priority: Priority) -> float:
        """Estimate how long work of a priority that comes now has to wait."""
        per_s = self.per_s
        if per_s is None:
            return 0.0
        ahead = self.waiting["interactive"]
        if priority == "bulk":
            ahead += self.waiting["bulk"]
        return ahead / per_s

    def look(self, now: float) -> None:
        """Count what was computed, and time that has passed, until now."""
        if self._since is not None:
            elapsed = max(now - self._since, 0.0)
            kept = math.exp(-elapsed / MEMORY_S)
            self._n_tokens *= kept
            self._busy_s = self._busy_s * kept + elapsed
            self._since = now
        for _ in range(len(self._computed)):
            work, n_tokens = self._computed.popleft()
            if not work.is_over:
                work.n_tokens += n_tokens
                done = min(int(n_tokens * self.cost_a_token), work.cost - work.done)
                work.done += done
                self.waiting[work.priority] -= done
            if self._since is not None:
                self._n_tokens += n_tokens
                if self._busy_s >= MEASURED_S:
                    self.tokens_per_s = self._n_tokens / self._busy_s

    def _learn(self, work: Work) -> None:
        """See what a token costs, of what a request had and what of it had to be computed.

        Little, where texts were in a cache, repeated or cut: one such request says little of the
        next, and many of them say it.
        """
        kept, known = math.exp(-work.n_tokens / MEMORY_TOKENS), self.cost_a_token
        least, most = work.n_tokens * known / MAX_STEP, work.n_tokens * known * MAX_STEP
        self._known_cost = kept * self._known_cost + min(max(work.cost, least), most)
        self._known_tokens = kept * self._known_tokens + work.n_tokens

    def _begin_or_end(self, now: float) -> None:
        """Measure from now on, or no longer."""
        # one request by itself is no faster than the server: what it shows is a least pace
        least = (self.tokens_per_s or self._best_alone) * self.cost_a_token
        is_enough = self.n_texts >= ENOUGH_TEXTS or (
            least > 0.0 and sum(self.waiting.values()) >= self.enough_s * least
        )
        if not is_enough:
            self._since = None
        elif self._since is None:
            self._since = now

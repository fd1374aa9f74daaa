"""Who computes what: of several calls that miss the same key at once, one computes it.

A call claims the keys it needs. Those that nobody has claimed are its own, and it computes all of
them before it waits for the others::

    with flights.call() as call:
        mine, others = call.claim(keys)
        call.fulfil(compute(mine))
        arrived, left = call.wait(others)      # claim what is left again

No two calls wait for each other, because each has fulfilled its own claims by then. A call that
ends without having fulfilled its claims, by an error or by Ctrl-C, gives them up, and those that
waited compute the keys themselves.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from embellama.calls import Call
from embellama.types import CachedVector

PATIENCE_S: Final = 60.0
"""How long to wait for the next vector of others: where none comes, one of them may hang, and
computing twice is better than waiting for ever."""


_SLICE = 4096
"""Keys that are claimed, or given up, before others have a look in: a millisecond's work."""


def _slices(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[at : at + _SLICE] for at in range(0, len(keys), _SLICE))


class Claim:
    """One call's promise to compute one key.

    Attributes:
        call: Whose.
        value: The vector, once it is there.
        ended: Whether the promise was kept or given up.
    """

    __slots__ = ("call", "ended", "value")

    def __init__(self, call: FlightCall) -> None:
        self.call = call
        self.value: CachedVector | None = None
        self.ended = False


class Flights:
    """The keys that are being computed now, by all threads of this process."""

    def __init__(self) -> None:
        self._forget()

    def call(self, caller: Call | None = None) -> FlightCall:
        """Begin a call; use it as a context manager, on one thread at a time."""
        if self._process_id != os.getpid():
            self._forget()  # the claims of a forked child are its parent's
        return FlightCall(self, caller if caller is not None else Call())

    def _forget(self) -> None:
        self._process_id = os.getpid()
        self.changed = threading.Condition()
        self.claims: dict[bytes, Claim] = {}
        self.n_ended = 0


class FlightCall:
    """One call among those that share `Flights`."""

    def __init__(self, flights: Flights, caller: Call) -> None:
        self._flights = flights
        self._caller = caller
        self._changed, self._claims = flights.changed, flights.claims
        self._n_ended_before = flights.n_ended
        self._thread = threading.get_ident()
        self._own: dict[bytes, Claim] = {}
        self._no_longer_awaited: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_up(list(self._own))

    def claim(self, keys: Sequence[bytes]) -> tuple[list[bytes], dict[bytes, Claim]]:
        """Divide keys into those to compute and those that are being computed.

        Returns:
            The keys to compute now, each once, in order; and the claims to `wait` for.
        """
        mine: list[bytes] = []
        others: dict[bytes, Claim] = {}
        different = list(dict.fromkeys(keys))
        for part in _slices(different):
            with self._changed:
                self._claim(part, mine, others)
        return mine, others

    def _claim(self, keys: Sequence[bytes], mine: list[bytes], others: dict[bytes, Claim]) -> None:
        for key in keys:
            claim = self._claims.get(key)
            if claim is None:
                self._own[key] = self._claims[key] = Claim(self)
                mine.append(key)
            elif key in self._no_longer_awaited or not self._waits_for(claim.call):
                mine.append(key)
            else:
                others[key] = claim

    def _waits_for(self, other: FlightCall) -> bool:
        """Tell whether another call's vectors are worth waiting for.

        Not those of one that runs around this one, nor, if this one is urgent, those that a bulk
        call gets to in its turn.
        """
        is_behind = self._caller.priority == "interactive" and other._caller.priority == "bulk"
        return not is_behind and not other.is_interrupted_by(self)

    def may_have_missed(self) -> bool:
        """Tell whether another call's claim has ended since this call began, or was last asked.

        A cache that was asked before the keys were claimed has then to be asked again.
        """
        before, self._n_ended_before = self._n_ended_before, self._flights.n_ended
        return before != self._n_ended_before

    def fulfil(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Hand computed vectors to those who wait; put them into the cache before."""
        with self._changed:
            for key, value in items:
                self._end(key, value)
            self._changed.notify_all()

    def give_up(self, keys: Sequence[bytes]) -> None:
        """Let others compute keys that this call has claimed and will not compute."""
        for part in _slices(keys):
            with self._changed:
                for key in part:
                    self._end(key, None)
                self._changed.notify_all()

    def wait(
        self,
        others: Mapping[bytes, Claim],
        *,
        timeout_s: float = PATIENCE_S,
    ) -> tuple[dict[bytes, CachedVector], list[bytes]]:
        """Wait for the vectors that other calls compute. Fulfil every claim of this call before.

        Args:
            others: What `claim` returned.
            timeout_s: How long to wait from one arrival to the next.

        Returns:
            The vectors that arrived, and the keys that did not: `claim` these again.
        """
        if not others:
            return {}, []
        self._caller.on_cancel(self._wake)
        try:
            with self._changed:
                self._wait_while_some_arrive(list(others.values()), timeout_s)
        finally:
            self._caller.off_cancel(self._wake)
        with self._changed:
            arrived = {k: c.value for k, c in others.items() if c.value is not None}
            left = [key for key in others if key not in arrived]
            self._no_longer_awaited.update(key for key in left if not others[key].ended)
        return arrived, left

    def is_interrupted_by(self, other: FlightCall) -> bool:
        """Tell whether another call runs inside this one: its progress callable has made it."""
        return self is not other and self._thread == other._thread

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _wait_while_some_arrive(self, claims: list[Claim], timeout_s: float) -> None:
        while claims := [claim for claim in claims if not claim.ended]:
            end = time.monotonic() + timeout_s
            while not any(claim.ended for claim in claims):
                patience_s = self._caller.remaining_s(at_most=end - time.monotonic())
                if self._caller.is_over or not self._changed.wait(patience_s):
                    return

    def _end(self, key: bytes, value: CachedVector | None) -> None:
        claim = self._own.pop(key, None)
        if claim is not None:
            claim.value, claim.ended = value, True
            self._flights.n_ended += 1
            self._n_ended_before += 1
            if self._claims.get(key) is claim:
                del self._claims[key]

"""What an overloaded server has to keep to, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benches.serving.client import CLOSED, LOST, Asked, Client

MAX_REFUSAL_MS = 50.0
RECOVERY_S = 2.0

FULL_SPEED = 0.8
"""Of the rate that can be kept up: half seconds of a few large answers each are uneven."""

HALF_S = 0.5

SURELY_S = 1.0
"""A request that was sent so long before has been admitted, or was told that it is not."""


@dataclass(frozen=True)
class Limit:
    """Something that may be so large and no larger; a value that is None was never reached."""

    name: str
    value: float | None
    most: float
    unit: str

    @property
    def is_kept(self) -> bool:
        return self.value is not None and self.value <= self.most

    def __str__(self) -> str:
        value = "never" if self.value is None else f"{self.value:,.4g} {self.unit}".strip()
        verdict = "holds" if self.is_kept else "DOES NOT HOLD"
        return f"{self.name}: {value} (limit {self.most:,.4g} {self.unit}".rstrip() + f") {verdict}"


def rates_after(since_s: float, asked: Sequence[Asked], seconds: float) -> list[float]:
    """Return the answers a second in each half second from a time on."""
    counts = [0] * round(seconds / HALF_S)
    for one in asked:
        at = int((one.done_s - since_s) // HALF_S)
        if one.status == 200 and 0 <= at < len(counts):
            counts[at] += 1
    return [count / HALF_S for count in counts]


def recovered_s(rates: Sequence[float], sustained: float) -> float | None:
    """Return when full speed was reached: the first second that has it begins then.

    Args:
        rates: Answers a second, by half second.
        sustained: The rate that can be kept up.
    """
    for at in range(len(rates) - 1):
        if (rates[at] + rates[at + 1]) / 2 >= FULL_SPEED * sustained:
            return at * HALF_S
    return None


def lost_answers(client: Client, noted: Mapping[str, int], told_s: float) -> list[Asked]:
    """Return the requests that were admitted, and whose answer never came.

    Args:
        client: Who asked.
        noted: The status of each request that the server noted, by id.
        told_s: When the server was told to end. What was sent well before that and has no answer
            was admitted, whatever was noted.
    """
    return [
        one
        for one in client.asked
        if one.status in (LOST, CLOSED)
        and (client.id_of(one.number) in noted or one.sent_s < told_s - SURELY_S)
    ]

"""The cache as one call sees it: what is known, what to compute, what others compute just now."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from embellama.cache.flight import Claim, FlightCall, Flights
from embellama.cache.key import cache_keys
from embellama.calls import Call
from embellama.encoding import TextOrIds
from embellama.request import EmbedRequest
from embellama.types import CachedVector, VectorCache


class CacheAccess:
    """A cache, seen by the calls that want the same of the same model.

    Args:
        cache: Where vectors are kept.
        flights: What is being computed now, by all calls that share the cache.
        model_fingerprint: Of the model.
        request: What the call wants of it.
        n_embd: Components of a whole vector.
    """

    def __init__(
        self,
        cache: VectorCache,
        flights: Flights,
        *,
        model_fingerprint: str,
        request: EmbedRequest,
        n_embd: int,
    ) -> None:
        self._cache = cache
        self._flights = flights
        self._fingerprint = model_fingerprint
        self._prompt = request.encoder.prompt
        self._policy = request.cache_policy
        self._n_embd = n_embd

    def keys(self, items: Sequence[TextOrIds]) -> list[bytes]:
        """Return the keys of inputs."""
        return cache_keys(
            fingerprint=self._fingerprint, prompt=self._prompt, overflow=self._policy, texts=items
        )

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, CachedVector]:
        """Return what is known; what cannot be this model's vector is not taken for one."""
        values = zip(keys, self._cache.get_many(keys), strict=True)
        return {key: value for key, value in values if value is not None and self._fits(value)}

    def _fits(self, value: CachedVector) -> bool:
        vector = value.vector
        return (
            vector.shape == (self._n_embd,)
            and vector.dtype == np.float32
            and bool(np.isfinite(vector).all())
        )

    def keep(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Put what was computed into the cache."""
        self._cache.put_many(items)

    def call(self, caller: Call) -> CachedCall:
        """Begin a call, as a context: what it has claimed and not kept is given up at its end."""
        return CachedCall(self, self._flights.call(caller))


class CachedCall:
    """One call's way through the cache.

    Attributes:
        found: What the cache had of the keys claimed last.
        missing: What the caller has to compute of them, and to `keep`.
    """

    def __init__(self, access: CacheAccess, flight: FlightCall) -> None:
        self._access = access
        self._flight = flight
        self._others: dict[bytes, Claim] = {}
        self.found: dict[bytes, CachedVector] = {}
        self.missing: list[bytes] = []

    def claim(self, keys: Sequence[bytes]) -> None:
        """Divide keys into what is known, what the caller has to compute, and what others do."""
        self.found = self._access.look_up(keys)
        absent = [key for key in keys if key not in self.found]
        self.missing, self._others = self._flight.claim(absent)
        if self.missing and self._flight.may_have_missed():
            # another call has put them there since the cache was asked
            late = self._access.look_up(self.missing)
            self._flight.fulfil(list(late.items()))
            self.found |= late
            self.missing = [key for key in self.missing if key not in late]

    def keep(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Put computed vectors into the cache, and hand them to those who wait for them."""
        self._access.keep(items)
        self._flight.fulfil(items)

    def wait(self) -> tuple[dict[bytes, CachedVector], list[bytes]]:
        """Wait for the keys that others compute, no longer than the caller waits.

        Returns:
            What they computed, and the keys with which they failed: those are to be claimed anew.
        """
        return self._flight.wait(self._others)

    def __enter__(self) -> Self:
        self._flight.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flight.__exit__(exc_type, exc, traceback)

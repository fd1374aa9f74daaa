"""A model that may be asked for: what it is called and how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from embellama.config import ModelConfig
from embellama.model_info import ModelInfo
from embellama.server.references import other_names

FOREVER = -1.0
"""Idle seconds of a model that stays."""


@dataclass(eq=False)
class Served:
    """A model that may be asked for.

    Attributes:
        name: What clients call it.
        reference: What it is loaded from.
        config: Its settings.
        keep_alive_s: Idle seconds after which it is unloaded; -1: never.
        is_starting: Whether the server loads it by itself right now, with nobody asking.
        is_added: Whether an administrator added it, so that it goes if it cannot be loaded.
        error: Why it could not be loaded.
        failed_at_s: When that was, on the clock of `time.monotonic`.
        n_users: Requests that use it.
        last_used_s: When the last one ended, on the clock of `time.monotonic`.
        info: What was loaded, the last time it was.
        loaded_at: When, in seconds since the epoch.
        changing: Held while it is loaded or unloaded.
        loading: The load that all requests for it wait for.
        n_placing: Administrators' loads of it that are not done.
        other_names: What it is called besides by who knows what it is loaded from.
    """

    name: str
    reference: str
    config: ModelConfig
    keep_alive_s: float = FOREVER
    is_starting: bool = False
    is_added: bool = False
    error: str | None = None
    failed_at_s: float | None = None
    n_users: int = 0
    last_used_s: float = field(default_factory=time.monotonic)
    info: ModelInfo | None = None
    loaded_at: float | None = None
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)
    loading: asyncio.Task[ModelInfo] | None = None
    n_placing: int = 0
    other_names: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self.other_names = other_names(self.reference)

    @property
    def expires_in_s(self) -> float | None:
        """Seconds until it is unloaded if nobody asks; None: it stays."""
        if self.keep_alive_s < 0:
            return None
        if self.n_users:
            return self.keep_alive_s
        return max(self.last_used_s + self.keep_alive_s - time.monotonic(), 0.0)

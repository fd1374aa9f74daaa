"""What every handler works with."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from embellama.cache import EmbeddingCache
from embellama.engine import EmbeddingEngine
from embellama.server.hosts import Hosts
from embellama.server.keys import Keys
from embellama.server.limits import Room
from embellama.server.metrics import Metrics
from embellama.server.models import ServedModels
from embellama.server.rates import TokenBuckets
from embellama.server.settings import ServerConfig
from embellama.server.tracing import Tracing


@dataclass
class Service:
    """The parts of a server. All but the engine are its event loop's alone.

    Attributes:
        config: The settings.
        engine: Computes.
        models: What is served.
        hosts: What the server may be called.
        room: How much may wait.
        keys: Who may ask; none: everybody.
        admin_keys: Who may load, unload and clear.
        buckets: How often.
        metrics: What is counted.
        cache: Where vectors are kept, if they are.
        tracing: Where spans go, if they do.
        is_stopping: Whether the server takes no new work any more.
        started_at: Seconds since the epoch.
        names_at_start: The models that it loads by itself, without which it is not ready.
    """

    config: ServerConfig
    engine: EmbeddingEngine
    models: ServedModels
    hosts: Hosts
    room: Room
    keys: Keys
    admin_keys: Keys
    buckets: TokenBuckets
    metrics: Metrics
    cache: EmbeddingCache | None = None
    tracing: Tracing | None = None
    is_stopping: bool = False
    started_at: float = field(default_factory=time.time)
    names_at_start: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        served = () if self.config.lazy else self.models.all()
        self.names_at_start = tuple(each.name for each in served)
        self.metrics.watch(self.engine, self.models, self.room)

"""The models that are served: what clients call them, which are loaded, when they are unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from embellama.config import EngineConfig, ModelConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import ConfigurationError, EmbellamaError
from embellama.host import DEFAULT_MODEL, name_of
from embellama.logs import log
from embellama.model_info import ModelInfo
from embellama.server.problems import Problem

State = Literal["unloaded", "loading", "loaded", "failed"]

FOREVER = -1.0
LOADING_RETRY_S = 2.0
UNLOAD_TIMEOUT_S = 30.0

_OLLAMA_TAG = ":latest"
"""What Ollama's clients put behind a name that has no tag."""


@dataclass(eq=False)
class Served:
    """A model that may be asked for.

    Attributes:
        name: What clients call it.
        reference: What it is loaded from.
        config: Its settings.
        keep_alive_s: Idle seconds after which it is unloaded; -1: never.
        is_starting: Whether the server loads it by itself right now, with nobody asking.
        error: Why it could not be loaded.
        n_users: Requests that use it.
        last_used_s: When the last one ended, on the clock of `time.monotonic`.
        info: What was loaded, the last time it was.
        loaded_at: When, in seconds since the epoch.
        changing: Held while it is loaded or unloaded.
    """

    name: str
    reference: str
    config: ModelConfig
    keep_alive_s: float = FOREVER
    is_starting: bool = False
    error: str | None = None
    n_users: int = 0
    last_used_s: float = field(default_factory=time.monotonic)
    info: ModelInfo | None = None
    loaded_at: float | None = None
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def expires_in_s(self) -> float | None:
        """Seconds until it is unloaded if nobody asks; None: it stays."""
        if self.keep_alive_s < 0:
            return None
        if self.n_users:
            return self.keep_alive_s
        return max(self.last_used_s + self.keep_alive_s - time.monotonic(), 0.0)


class ServedModels:
    """The models of a server, for its event loop. The engine is the one that holds them.

    Args:
        engine: Loads and holds them.
        references: What to serve, by name; the first is the default.
        configs: Settings by name, for those that have any.
        aliases: Other names.
        keep_alive_s: Idle seconds after which a model is unloaded; -1: never.

    Raises:
        ConfigurationError: An alias means nothing, or has the name of a model.
    """

    def __init__(
        self,
        engine: EmbeddingEngine,
        references: Mapping[str, str],
        *,
        configs: Mapping[str, ModelConfig] | None = None,
        aliases: Mapping[str, str] | None = None,
        keep_alive_s: float = FOREVER,
    ) -> None:
        self._engine = engine
        self._keep_alive_s = keep_alive_s
        known = configs or {}
        self._served = {
            name: Served(name, reference, known.get(name) or ModelConfig(), keep_alive_s)
            for name, reference in references.items()
        }
        self.aliases = dict(aliases or {})
        for alias, name in self.aliases.items():
            if name not in self._served:
                raise ConfigurationError(
                    f"the alias {alias!r} stands for {name!r}, which is not served; there are: "
                    f"{', '.join(self._served) or 'none'}"
                )
            if alias in self._served:
                raise ConfigurationError(f"the alias {alias!r} is the name of a model itself")
        self._tasks: set[asyncio.Task[Any]] = set()

    def all(self) -> Sequence[Served]:
        """List what is served, the default one first."""
        return list(self._served.values())

    def find(self, name: str | None) -> Served:
        """Return what a client calls a model; the default one where it says nothing.

        Raises:
            Problem: There is no such model; 404, with the names there are.
        """
        if not name:
            if self._served:
                return next(iter(self._served.values()))
            raise Problem(503, "no_model", "no model is served yet; an administrator loads one")
        plain = name.removesuffix(_OLLAMA_TAG)
        for called in (name, plain):
            found = self._served.get(self.aliases.get(called, called))
            if found is not None:
                return found
        have = ", ".join([*self._served, *self.aliases]) or "none"
        raise Problem(
            404,
            "model_not_found",
            f"no model {name[:200]!r} is served here; there are: {have}",
            param="model",
        )

    def state(self, served: Served) -> State:
        """Tell how far a model is."""
        if self._engine.is_loaded(served.name):
            return "loaded"
        if served.changing.locked() or served.is_starting:
            return "loading"
        return "failed" if served.error is not None else "unloaded"

    @asynccontextmanager
    async def use(self, served: Served) -> AsyncIterator[ModelInfo]:
        """Hold a model, loading it first where it is not loaded.

        Raises:
            Problem: The server is loading it since its own start; 503.
            EmbellamaError: It could not be loaded.
        """
        served.n_users += 1
        try:
            yield await self._info(served)
        finally:
            served.n_users -= 1
            served.last_used_s = time.monotonic()
            if served.keep_alive_s == 0 and not served.n_users:
                self._keep(asyncio.ensure_future(self._unload_idle(served)))

    async def _info(self, served: Served) -> ModelInfo:
        if served.info is not None and self._engine.is_loaded(served.name):
            return served.info
        if served.is_starting:
            raise Problem(
                503,
                "loading",
                f"the model {served.name!r} is being loaded; try again in a moment",
                retry_after_s=LOADING_RETRY_S,
            )
        # a client that goes away does not end a load that others may wait for
        loading = asyncio.ensure_future(self.load(served))
        self._keep(loading)
        return await asyncio.shield(loading)

    async def load(self, served: Served, *, reference: str | None = None) -> ModelInfo:
        """Load a model, or replace it by another one without a failed request.

        Args:
            served: What to load.
            reference: What it is from now on; what it was unless given.

        Raises:
            EmbellamaError: It could not be loaded; what was there stays.
        """
        async with served.changing:
            wanted = reference or served.reference
            is_there = self._engine.is_loaded(served.name)
            if is_there and wanted == served.reference and served.info is not None:
                return served.info
            try:
                served.info = await asyncio.to_thread(
                    self._engine.load_model, wanted, name=served.name, config=served.config
                )
            except EmbellamaError as exc:
                served.error = str(exc)
                log.warning("embellama.server.load_failed", model=served.name, error=str(exc))
                raise
            served.error, served.reference = None, wanted
            served.loaded_at, served.last_used_s = time.time(), time.monotonic()
            if not is_there:  # what a request said of the one before ended with it
                served.keep_alive_s = self._keep_alive_s
            for warning in served.info.warnings:
                log.warning("embellama.model.warned", model=served.name, warning=warning)
            return served.info

    async def unload(self, served: Served, *, only_idle: bool = False) -> bool:
        """Unload a model when its running work is done; False if it was not loaded, or is used."""
        async with served.changing:
            if not self._engine.is_loaded(served.name) or (only_idle and served.n_users):
                return False
            await asyncio.to_thread(
                self._engine.unload_model, served.name, timeout_s=UNLOAD_TIMEOUT_S
            )
            return True

    def add(self, name: str, reference: str) -> Served:
        """Serve another model under a new name."""
        served = Served(name, reference, ModelConfig(), self._keep_alive_s)
        return self._served.setdefault(name, served)

    def forget(self, served: Served) -> None:
        """Serve a model no longer that could not be loaded."""
        if self._served.get(served.name) is served and not self._engine.is_loaded(served.name):
            del self._served[served.name]

    async def start(self) -> None:
        """Load every model, one after the other. A failure is logged and kept; others go on."""
        for served in self.all():
            served.is_starting = True
        for served in self.all():
            try:
                await self.load(served)
            except EmbellamaError:
                continue  # logged and kept above; a request will try again
            finally:
                served.is_starting = False

    async def unload_when_idle(self, *, every_s: float = 0.5) -> None:
        """Unload idle models from time to time, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            for served in self.all():
                await self._unload_idle(served)

    async def _unload_idle(self, served: Served) -> None:
        if served.n_users or served.expires_in_s != 0.0 or not self._engine.is_loaded(served.name):
            return
        try:
            if await self.unload(served, only_idle=True):
                log.info("embellama.server.unloaded", model=served.name, why="idle")
        except EmbellamaError as exc:
            log.warning("embellama.server.unload_failed", model=served.name, error=str(exc))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a reference: the loop has only a weak one."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def served_references(
    given: Sequence[str],
    configured: EngineConfig,
    model_settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], dict[str, ModelConfig]]:
    """Work out names and settings of what is to be served: what was given, or configured.

    Args:
        given: References, with ``name=`` in front where wanted.
        configured: The engine's settings, whose models are served where none is given, or
            `DEFAULT_MODEL` where it has none either.
        model_settings: Settings that hold for each model, whatever else is configured.

    Raises:
        ConfigurationError: Two have one name.
    """
    configs = {name_of(config): config for config in configured.all_models}
    references: dict[str, str] = {}
    if not given:
        references = {name: str(c.model_path or name) for name, c in configs.items()}
    for reference in given or ([] if references else [DEFAULT_MODEL]):
        name, separator, rest = reference.partition("=")
        if not separator and reference in configs:  # a configured model, by its name
            rest = str(configs[reference].model_path or reference)
        elif not separator:
            name, rest = name_of(ModelConfig(model_path=reference)), reference
        if name in references:
            raise ConfigurationError(
                f"two models would be called {name!r} ({references[name]} and {rest}); give one "
                "of them a name: name=model"
            )
        references[name] = rest
    return references, {
        name: _overlaid(configs.get(name), model_settings or {}) for name in references
    }


def _overlaid(config: ModelConfig | None, settings: Mapping[str, Any]) -> ModelConfig:
    if config is None or not settings:
        return config or ModelConfig(**settings)
    return ModelConfig(**{**config.model_dump(exclude_unset=True, exclude_none=True), **settings})

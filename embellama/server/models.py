"""The models that are served: what clients call them, which are loaded, when they are unloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeVar

from embellama.config import ModelConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import (
    ConfigurationError,
    EmbellamaError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
)
from embellama.logs import log
from embellama.model_info import ModelInfo
from embellama.server.limits import MAX_WAITING_COST
from embellama.server.problems import Problem
from embellama.server.references import other_names
from embellama.server.served import FOREVER, Served
from embellama.server.threads import on_thread

T = TypeVar("T")

State = Literal["unloaded", "loading", "loaded", "failed"]

LOADING_RETRY_S = 2.0
UNLOAD_TIMEOUT_S = 30.0

FAILURE_PAUSE_S = 5.0
"""How long after a load that failed requests are told so without another attempt."""

MEMORY_WAIT_S = 5.0
"""How long a load waits for memory that models in use take: most are for milliseconds."""

OLLAMA_TAG = ":latest"
"""What Ollama's clients put behind a name that has no tag."""


class ServedModels:
    """The models of a server, for its event loop. The engine is the one that holds them.

    Args:
        engine: Loads and holds them.
        references: What to serve, by name; the first is the default.
        configs: Settings by name, for those that have any.
        aliases: Other names.
        keep_alive_s: Idle seconds after which a model is unloaded; -1: never.
        on_loaded: Called after each load.
        max_waiting: Most requests that wait for loads.
        max_wait_s: Longest that one of them waits.

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
        on_loaded: Callable[[], None] = lambda: None,
        max_waiting: int = 512,
        max_wait_s: float = 60.0,
    ) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._n_waiting = 0
        self._waiting_cost = 0
        self.failure_pause_s = FAILURE_PAUSE_S
        self._on_loaded = on_loaded
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
        for called in (name, name.removesuffix(OLLAMA_TAG)):
            found = self._served.get(self.aliases.get(called, called)) or self._by_other(called)
            if found is not None:
                return found
        raise self._unknown(name)

    def _unknown(self, name: str) -> Problem:
        have = ", ".join([*self._served, *self.aliases]) or "none"
        return Problem(
            404,
            "model_not_found",
            f"no model {name[:200]!r} is served here; there are: {have}",
            param="model",
        )

    def _by_other(self, called: str) -> Served | None:
        """Find a model by what it is loaded from; by names of its kind only where one has them."""
        for served in self._served.values():
            if served.other_names[:1] == (called,):
                return served
        found = [served for served in self._served.values() if called in served.other_names]
        return found[0] if len(found) == 1 else None

    def state(self, served: Served) -> State:
        """Tell how far a model is."""
        if self._engine.is_loaded(served.name):
            return "loaded"
        if served.changing.locked() or served.is_starting:
            return "loading"
        return "failed" if served.failed_at_s is not None else "unloaded"

    @asynccontextmanager
    async def use(
        self, served: Served, *, within_s: float | None = None, cost: int = 0
    ) -> AsyncIterator[ModelInfo]:
        """Hold a model, loading it first where it is not loaded.

        Args:
            served: The model.
            within_s: Longest to wait for a load; as long as any request may take unless given.
            cost: About the bytes that the request holds meanwhile.

        Raises:
            Problem: It is not there in time, too many wait for it, or it cannot be loaded; 503.
            OverloadedError: Models in use take the memory.
        """
        served.n_users += 1
        try:
            limit_s = self._max_wait_s
            yield await self._info(served, limit_s if within_s is None else within_s, cost)
        finally:
            served.n_users -= 1
            served.last_used_s = time.monotonic()
            if served.keep_alive_s == 0 and not served.n_users:
                self._keep(self._unload_idle(served))

    async def _info(self, served: Served, within_s: float, cost: int) -> ModelInfo:
        if served.info is not None and self._engine.is_loaded(served.name):
            return served.info
        self._check_may_wait(served, cost)
        # one load for all; a client that goes away does not end it
        if served.loading is None or served.loading.done():
            served.loading = self._keep(self.load(served))
        loading = served.loading
        self._n_waiting += 1
        self._waiting_cost += cost
        try:
            done, _ = await asyncio.wait({loading}, timeout=within_s)
        finally:
            self._n_waiting -= 1
            self._waiting_cost -= cost
        if not done:
            raise _still_loading(served, "is still being loaded")
        try:
            return loading.result()
        except OverloadedError:
            raise
        except EmbellamaError as exc:
            raise _not_loaded(served, self.failure_pause_s) from exc

    def _check_may_wait(self, served: Served, cost: int) -> None:
        if served.is_starting:
            raise _still_loading(served, "is being loaded")
        if served.failed_at_s is not None:
            left_s = served.failed_at_s + self.failure_pause_s - time.monotonic()
            if left_s > 0:
                raise _not_loaded(served, left_s)
        n_waiting, bytes_waiting = self._n_waiting, self._waiting_cost + cost
        if n_waiting >= self._max_waiting or (n_waiting and bytes_waiting > MAX_WAITING_COST):
            raise _still_loading(
                served, f"is not loaded, and {n_waiting} requests wait for loads already"
            )

    async def load(self, served: Served, *, reference: str | None = None) -> ModelInfo:
        """Load a model, or replace it by another one without a failed request.

        Args:
            served: What to load.
            reference: What it is from now on; what it was unless given.

        Raises:
            Problem: It was given up while this waited for its turn; 404.
            EmbellamaError: It could not be loaded; what was there stays.
        """
        async with served.changing:
            if self._served.get(served.name) is not served:
                raise self._unknown(served.name)
            wanted = reference or served.reference
            is_there = self._engine.is_loaded(served.name)
            if is_there and wanted == served.reference and served.info is not None:
                return served.info
            try:
                served.info = await self._loaded(served, wanted)
            except EmbellamaError as exc:
                log.warning("embellama.server.load_failed", model=served.name, error=str(exc))
                if not isinstance(exc, OverloadedError):  # that is not the model's fault
                    served.error = str(exc)
                    served.failed_at_s = None if is_there else time.monotonic()
                raise
            served.error, served.failed_at_s = None, None
            served.reference, served.other_names = wanted, other_names(wanted)
            served.loaded_at, served.last_used_s = time.time(), time.monotonic()
            if not is_there:  # what a request said of the one before ended with it
                served.keep_alive_s = self._keep_alive_s
            for warning in served.info.warnings:
                log.warning("embellama.model.warned", model=served.name, warning=warning)
            self._on_loaded()
            return served.info

    async def _loaded(self, served: Served, reference: str) -> ModelInfo:
        """Have the engine load it, waiting for a moment where models in use take the memory."""
        load = partial(
            self._engine.load_model,
            reference,
            name=served.name,
            config=served.config,
            wait_s=MEMORY_WAIT_S,
        )
        try:
            return await on_thread(load)
        except EmbellamaError:
            raise
        except Exception as exc:
            raise ModelLoadError(f"{served.name!r} could not be loaded: {exc!r}") from exc

    async def unload(self, served: Served, *, only_idle: bool = False) -> bool:
        """Unload a model when its running work is done; False if it was not loaded, or is used."""
        async with served.changing:
            # a load may have come before this had its turn
            is_kept = only_idle and not _is_over(served)
            if is_kept or not self._engine.is_loaded(served.name):
                return False
            unload = partial(self._engine.unload_model, served.name, timeout_s=UNLOAD_TIMEOUT_S)
            try:
                await on_thread(unload)
            except ModelNotFoundError:  # it made room for another one just now
                return False
            return True

    def add(self, name: str, reference: str) -> Served:
        """Serve another model under a new name."""
        served = Served(name, reference, ModelConfig(), self._keep_alive_s, is_added=True)
        return self._served.setdefault(name, served)

    async def place(
        self, name: str, reference: str | None, *, keep_alive_s: float | None = None
    ) -> Served:
        """Load a model under a name, which may be new; done to its end also if nobody waits for it.

        Args:
            name: The name.
            reference: What it is from now on; needed for a new name.
            keep_alive_s: Idle seconds after which it is unloaded.

        Raises:
            Problem: The name is new, and nothing says what it is; 404.
            EmbellamaError: It could not be loaded; a new name is gone again.
        """
        return await asyncio.shield(self._keep(self._place(name, reference, keep_alive_s)))

    async def _place(self, name: str, reference: str | None, keep_alive_s: float | None) -> Served:
        if name in self._served or reference is None:
            served = self.find(name)
        else:
            served = self.add(name, reference)
        served.n_placing += 1
        try:
            await self.load(served, reference=reference)
        finally:
            served.n_placing -= 1
            if served.is_added and served.info is None and not served.n_placing:
                self._served.pop(served.name, None)
        if keep_alive_s is not None:
            served.keep_alive_s = keep_alive_s
        return served

    def announce(self) -> None:
        """Let it be known that `start` comes, so that no request loads anything before."""
        for served in self.all():
            served.is_starting = True

    async def start(self) -> None:
        """Load every model, one after the other. A failure is logged and kept; others go on."""
        self.announce()
        starting = self.all()
        try:
            for served in starting:
                try:
                    await self.load(served)
                except EmbellamaError:
                    continue  # logged and kept above; a request will try again
                except Exception as exc:  # noqa: BLE001 - logged and kept, and the others go on
                    served.error, served.failed_at_s = repr(exc), time.monotonic()
                    log.warning(
                        "embellama.server.load_failed", model=served.name, error=served.error
                    )
                finally:
                    served.is_starting = False
            self._warn_of_evicted(starting)
        finally:
            for served in starting:
                served.is_starting = False  # also where it was cancelled in between

    def _warn_of_evicted(self, started: Sequence[Served]) -> None:
        gone = [each.name for each in started if each.info and self.state(each) != "loaded"]
        if gone:
            log.warning(
                "embellama.server.memory_short",
                unloaded=gone,
                why="the models do not fit into the memory limit together: each is loaded when it "
                "is asked for, and pushes others out; raise --memory-limit, or serve fewer",
            )

    async def unload_when_idle(self, *, every_s: float = 0.5) -> None:
        """Unload idle models from time to time, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            for served in self.all():
                await self._unload_idle(served)

    async def _unload_idle(self, served: Served) -> None:
        # one that is being loaded is not idle, and the others do not wait for it
        if served.changing.locked() or not _is_over(served):
            return
        try:
            if await self.unload(served, only_idle=True):
                log.info("embellama.server.unloaded", model=served.name, why="idle")
        except Exception as exc:  # noqa: BLE001 - logged, and the other models' turn comes
            log.warning("embellama.server.unload_failed", model=served.name, error=repr(exc))

    def _keep(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it whoever waits; a reference is held since the loop has only a weak one."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # logged where it came from, also if nobody waits for it any more


def _is_over(served: Served) -> bool:
    return not served.n_users and served.expires_in_s == 0.0


def _still_loading(served: Served, how: str) -> Problem:
    return Problem(
        503,
        "loading",
        f"the model {served.name!r} {how}; try again in a moment",
        retry_after_s=LOADING_RETRY_S,
    )


def _not_loaded(served: Served, retry_after_s: float) -> Problem:
    """Say that much and no more: why, with its paths, is for administrators and the log."""
    return Problem(
        503,
        "model_load_failed",
        f"the model {served.name!r} could not be loaded; the server's log says why",
        retry_after_s=max(1.0, retry_after_s),
    )

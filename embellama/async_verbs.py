"""The verbs for programs with an event loop: they wait on threads, so that the loop never does."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from numpy.typing import NDArray

from embellama.calls import Call
from embellama.config import EngineConfig
from embellama.embedding import Begun, Embedded, begin_one, detailed, raise_alone
from embellama.errors import BatchError
from embellama.inputs import check_input
from embellama.loaded_model import LoadedModel
from embellama.precision.calibration import Calibration
from embellama.request import EmbedOptions
from embellama.results import EmbeddingResult
from embellama.text_verbs import CALLED_FROM, Input, TextVerbs, caller_site
from embellama.types import (
    Backend,
    Kind,
    Normalization,
    Overflow,
    Precision,
    Priority,
    TruncateSide,
    VectorCache,
)

T = TypeVar("T")

_N_THREADS: dict[Priority, int] = {"interactive": 64, "bulk": 16}
"""Calls of each class that wait at the same time; more of them wait for a thread.

64 short texts fill the micro-batches of several contexts, and a bulk call fills them alone. Each
class has its own, so that bulk calls never keep interactive ones from getting in line.
"""


LOOP_THREAD_CHARS = 1024
"""Longest text, prompt included, that is tokenized on the event loop's thread: 50 us, as long as
two threads take to hand over to each other."""

_GRACE_S = 0.05
"""For the thread of a call whose time is up to notice it too, and so to make room for another."""


class AsyncVerbs(TextVerbs):
    """The part of an engine that is awaited."""

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        backend: Backend | None = None,
        cache: VectorCache | None = None,
    ) -> None:
        self._making_pools = threading.Lock()
        self._pools: dict[Priority, ThreadPoolExecutor] = {}
        super().__init__(config, backend=backend, cache=cache)

    async def aembed(
        self,
        model: str | None,
        text: Input,
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "interactive",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed one text as `embed` does, without blocking the event loop.

        Texts of concurrent tasks share micro-batches. A task that is cancelled takes its text back
        if nothing computes it yet.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        call = Call(priority, timeout_s, caller=task_id())
        if self._is_short(text, options):
            try:
                with self._use_here(model) as loaded:
                    begun = self._begun(loaded, text, options, call)
                    vector: NDArray[Any] = (await self._ended(begun, call)).vectors[0]
                    return vector
            except BatchError as exc:
                raise_alone(exc)
        return await self._on_thread(
            call, lambda: self._embed(model, text, options, call, is_admitted=True)
        )

    async def aembed_batch(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed many texts as `embed_batch` does, without blocking the event loop.

        Leave the sequence as it is until it is done. A task that is cancelled ends its work within
        a micro-batch.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        call = Call(priority, timeout_s, caller=task_id())
        return await self._on_thread(
            call, lambda: self._embed_batch(model, texts, options, call, is_admitted=True)
        )

    async def aembed_detailed(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> EmbeddingResult:
        """Embed many texts as `embed_detailed` does, without blocking the event loop.

        Leave the sequence as it is until it is done. A task that is cancelled ends its work within
        a micro-batch.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        call = Call(priority, timeout_s, caller=task_id())
        is_one = isinstance(texts, list | tuple) and len(texts) == 1
        if is_one and self._is_short(texts[0], options):
            with self._use_here(model) as loaded:
                begun = self._begun(loaded, texts[0], options, call)
                done = await self._ended(begun, call)
                return detailed(loaded, begun.request, done, call)
        return await self._on_thread(
            call, lambda: self._embed_detailed(model, texts, options, call, is_admitted=True)
        )

    def close(self) -> None:
        """Free every model, each when its running work is done. May be called again.

        Awaited calls that no thread has begun raise `ContextError`. Otherwise as
        `ModelHost.close`.
        """
        super().close()
        with self._making_pools:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=False)

    async def aclose(self) -> None:
        """Close as `close` does, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _is_short(self, text: object, options: EmbedOptions) -> bool:
        """Tell whether a text is begun sooner here than handed to a thread.

        Not where a cache is looked up, or a model may have to be loaded: that takes time.
        """
        if not isinstance(text, str) or self._cache is not None or self._config.lazy:
            return False
        prompt = options.prompt
        n_chars = len(text) + (len(prompt) if isinstance(prompt, str) else 0)
        return n_chars <= LOOP_THREAD_CHARS

    @contextmanager
    def _use_here(self, model: str | None) -> Iterator[LoadedModel]:
        """Use a model on the event loop's thread, which does not free it if it ends with that."""
        with self._lease(model) as lease:
            lease.frees_elsewhere = True
            yield lease.model

    def _begun(self, loaded: LoadedModel, text: Input, options: EmbedOptions, call: Call) -> Begun:
        item = check_input(text, n_vocab=loaded.facts.n_vocab)
        return begin_one(loaded, item, self._requested(loaded, options), call)

    async def _ended(self, begun: Begun, call: Call) -> Embedded:
        """Wait for what was begun here, and take it back if nobody wants it any more."""
        if begun.pending is not None:
            try:
                arrived, settle = _signal()
                begun.pending.on_done(settle)
                await asyncio.wait([arrived], timeout=call.remaining_s())
            except BaseException:  # cancelled, or a coroutine that is closed or dropped
                call.cancel()
                raise
            if not arrived.done():
                call.cancel()
                raise call.timed_out()
        return begun.end()

    async def _on_thread(self, call: Call, work: Callable[[], T]) -> T:
        self._check_usable()
        context = contextvars.copy_context()  # what the task binds to its log events
        context.run(CALLED_FROM.set, caller_site())
        held = ExitStack()

        def run() -> T:
            # what is queued counts until a thread has looked at it, also where nobody waits
            with held:
                call.waited_s = time.perf_counter() - call.started_s
                call.check()
                return context.run(work)

        held.enter_context(self._admission)
        try:
            done = self._submit(call.priority, run)
        except BaseException:
            held.close()
            raise
        try:
            arrived, settle = _signal()
            done.add_done_callback(lambda _: settle())
            await asyncio.wait([arrived], timeout=call.remaining_s())
        except BaseException:  # cancelled, or a coroutine that is closed or dropped
            call.cancel()
            raise
        if not arrived.done():
            call.cancel()
            await asyncio.wait([arrived], timeout=_GRACE_S)
            raise call.timed_out()
        return done.result()

    def _submit(self, priority: Priority, work: Callable[[], T]) -> Future[T]:
        with self._making_pools:
            self._check_usable()  # once more: what is closed makes and takes nothing new
            if priority not in self._pools:
                self._pools[priority] = ThreadPoolExecutor(
                    _N_THREADS[priority], thread_name_prefix=f"embellama-async-{priority}"
                )
            return self._pools[priority].submit(work)


def _signal() -> tuple[asyncio.Future[None], Callable[[], None]]:
    """Return a future of this loop, and what settles it from any thread."""
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()

    def settle() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def tell() -> None:
        # a loop that was closed meanwhile has nobody left who waits
        if not loop.is_closed():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(settle)

    return arrived, tell


def task_id() -> int:
    """Identify the task that awaits a call, whose calls come one after the other."""
    return id(asyncio.current_task())

"""Models by name: loaded, leased to the calls that use them, unloaded."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from embellama._parallel import available_cores
from embellama.calls import Admission, check_seconds
from embellama.config import EngineConfig, ModelConfig
from embellama.errors import (
    ConfigurationError,
    ContextError,
    EmbellamaError,
    InvalidInputTypeError,
    ModelNotFoundError,
)
from embellama.hub.reference import (
    CatalogReference,
    FileReference,
    parse_reference,
    plain_stem,
)
from embellama.hub.resolve import ResolvedModel, resolve_model
from embellama.hub.store import cache_directory
from embellama.identity import ContentDigests, file_state
from embellama.loaded_model import LoadedModel
from embellama.loading import expected_bytes, find_tuning, open_model
from embellama.logs import log
from embellama.model_info import ModelInfo
from embellama.registry import Lease, ModelRegistry
from embellama.statistics import StatisticsSnapshot
from embellama.tuning import FOLDER, Tuning
from embellama.types import Backend

DEFAULT_MODEL = "minilm"
"""What the command line and an engine that loads lazily take when nothing is named."""


class ModelHost:
    """The part of an engine that keeps models. Every method may be called from any thread."""

    def __init__(self, config: EngineConfig | None, backend: Backend | None) -> None:
        self._config = config if config is not None else EngineConfig()
        self._process_id = os.getpid()
        self._closed = False
        self._n_jobs = self._config.n_jobs or available_cores()
        self._admission = Admission(self._config.max_concurrent_requests)
        self._registry: ModelRegistry[LoadedModel] = ModelRegistry(
            memory_limit_bytes=self._config.memory_limit_bytes
        )
        cache = cache_directory(self._config.cache_path)
        self._digests = ContentDigests(cache / "digests")
        self._backend = backend if backend is not None else _any_backend(cache, self._digests)
        self._configured: dict[str, ModelConfig] = {}
        for model in self._config.all_models:
            name = name_of(model)
            if name in self._configured:
                raise ConfigurationError(
                    f"two models are configured under the name {name!r} "
                    f"({self._configured[name].model_path} and {model.model_path}); "
                    "give one of them a model_name"
                )
            self._configured[name] = model
        # frees what is loaded when the engine is dropped without close(), and at exit
        self._finalizer = weakref.finalize(self, self._registry.close)
        if not self._config.lazy:
            try:
                for name in self._configured:
                    self._load_configured(name)
            except BaseException:
                self.close()
                raise

    def load_model(
        self,
        model: str | Path,
        *,
        name: str | None = None,
        config: ModelConfig | None = None,
        on_step: Callable[[str], None] | None = None,
        progress: bool = False,
        wait_s: float = 0.0,
    ) -> ModelInfo:
        """Load a model, fetching it first where it is not stored.

        Args:
            model: A catalogue name (``"minilm"``, ``"minilm:Q8_0"``), a path to a GGUF,
                ``"hf:owner/repo:QUANT"`` or ``"hf:owner/repo@revision/file.gguf"``.
            name: What to call it; the catalogue's name or the file's stem if not given. A model
                already under this name is replaced once the new one is ready.
            config: Its settings; those configured under its name, or the defaults, if not given.
            on_step: Told in a sentence what is being done, for downloads and conversions.
            progress: Draw a bar on standard error while bytes are fetched.
            wait_s: Longest to wait for memory that models in use take.

        Returns:
            What was loaded.

        Raises:
            ModelNotFoundError: No such file or catalogue name.
            DownloadError, ConversionError: It could not be fetched or converted.
            GGUFFormatError, ModelLoadError: The file cannot be used.
            ConfigurationError: The settings do not fit the model or the machine.
            OverloadedError: The memory limit is taken by models in use.
        """
        self._check_usable()
        check_seconds("wait_s", wait_s)
        name = _checked_name(name) if name is not None else None
        resolved = resolve_model(
            model,
            cache_path=self._config.cache_path,
            offline=self._config.offline,
            progress=on_step,
            progress_bar=progress,
        )
        name = name or (config.model_name if config is not None else None) or resolved.name
        config = config or self._configured.get(name) or ModelConfig()
        resolved, tuning = self._tuned(str(model), resolved, config, on_step)
        settings = config.model_dump_json(exclude={"model_path", "model_name"})
        config, n_bytes = self._within_limit(resolved, config)
        loaded = self._registry.load(
            name,
            (resolved.path.resolve(), *map(file_state, resolved.paths), settings),
            lambda: open_model(
                resolved,
                name=name,
                config=config,
                backend=self._backend,
                reference=str(model),
                digests=self._digests,
                tuning=tuning,
            ),
            n_bytes=n_bytes,
            wait_s=wait_s,
        )
        return loaded.info

    def _within_limit(
        self, resolved: ResolvedModel, config: ModelConfig
    ) -> tuple[ModelConfig, int]:
        """Tell what a load will take, exactly where there is a limit to hold it against.

        Weights packed for the native kernels may take more than those of the file. Where only the
        latter are within the limit, llama.cpp takes the model.
        """
        limit = self._config.memory_limit_bytes
        if limit is None:
            return config, resolved.size_bytes
        n_bytes = expected_bytes(resolved, config)
        if config.backend != "auto" or not n_bytes > limit >= resolved.size_bytes:
            return config, n_bytes
        reason = f"packed weights of {n_bytes:,} bytes are over the limit of {limit:,}"
        log.warning("embellama.native.refused", model=resolved.name, reason=reason)
        return config.model_copy(update={"backend": "llama"}), resolved.size_bytes

    def _tuned(
        self,
        model: str,
        resolved: ResolvedModel,
        config: ModelConfig,
        on_step: Callable[[str], None] | None,
    ) -> tuple[ResolvedModel, Tuning | None]:
        """Return what was found for a model here, and the file that the user let it choose."""
        folder = cache_directory(self._config.cache_path) / FOLDER
        look = partial(
            find_tuning,
            config=config,
            backend=self._backend,
            digests=self._digests,
            folder=folder,
        )
        tuning = look(resolved)
        named_by_type = model != resolved.name
        if tuning is None or tuning.file_type is None or resolved.entry is None:
            return resolved, tuning
        if named_by_type:  # what was found is for the other type
            return resolved, None
        log.info("embellama.model.retyped", model=resolved.name, file_type=tuning.file_type)
        chosen = resolve_model(
            f"{resolved.entry.name}:{tuning.file_type}",
            cache_path=self._config.cache_path,
            offline=self._config.offline,
            progress=on_step,
        )
        return chosen, look(chosen)

    def unload_model(self, name: str, *, timeout_s: float | None = None) -> None:
        """Free a model once the work that runs on it is done.

        Does not wait for calls of the thread that unloads, such as an event loop's: the model is
        freed when they end.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
            OverloadedError: Work still runs after the time-out; the model stays loaded.
        """
        self._check_usable()
        limit = self._config.unload_timeout_s if timeout_s is None else timeout_s
        check_seconds("timeout_s", limit)
        self._registry.unload(name, timeout_s=limit)

    @property
    def config(self) -> EngineConfig:
        """The settings it was made with."""
        return self._config

    def list_models(self) -> list[str]:
        """List the names of the loaded models, in the order of loading."""
        self._check_usable()
        return self._registry.names()

    def is_loaded(self, name: str) -> bool:
        """Tell whether a model of this name is loaded."""
        return name in self.list_models()

    def get_model_info(self, model: str | None = None) -> ModelInfo:
        """Describe a loaded model.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
        """
        with self._lease(model, is_admitted=True, is_use=False) as lease:
            return lease.model.info

    def stats(self) -> dict[str, StatisticsSnapshot]:
        """Return what each loaded model has done since it was loaded, by name."""
        found = {}
        for name in self.list_models():
            try:
                with self._registry.lease(name, is_use=False) as lease:
                    found[name] = lease.model.statistics.snapshot()
            except ModelNotFoundError:  # unloaded meanwhile
                continue
        return found

    def close(self) -> None:
        """Free every model, each when its running work is done. May be called again.

        Waits for that work up to ``unload_timeout_s``. A stream left open raises `ContextError` at
        its next step and holds its model until then. In a forked child this does nothing.
        """
        self._closed = True
        self._registry.close(timeout_s=self._config.unload_timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _use(self, model: str | None, *, is_admitted: bool = False) -> Iterator[LoadedModel]:
        with self._lease(model, is_admitted=is_admitted) as lease:
            yield lease.model

    @contextmanager
    def _lease(
        self, model: str | None, *, is_admitted: bool = False, is_use: bool = True
    ) -> Iterator[Lease[LoadedModel]]:
        self._check_usable()
        name = self._default_name() if model is None else _checked_name(model)
        lend = self._lazy_lease if self._config.lazy else self._registry.lease
        with nullcontext() if is_admitted else self._admission, lend(name, is_use=is_use) as lease:
            try:
                yield lease
            except EmbellamaError:
                lease.model.statistics.record_error()
                raise

    @contextmanager
    def _lazy_lease(self, name: str, *, is_use: bool) -> Iterator[Lease[LoadedModel]]:
        with ExitStack() as stack:
            while True:
                try:
                    lease = stack.enter_context(self._registry.lease(name, is_use=is_use))
                    break
                except ModelNotFoundError:
                    # once more if another thread's load evicts it before it is leased
                    self._load_lazily(name)
            yield lease

    def _default_name(self) -> str:
        names = self._registry.names()
        default = next(iter(self._configured), None)
        if default is not None and (self._config.lazy or default in names):
            return default
        if len(names) == 1:
            return names[0]
        if not names and self._config.lazy:
            return DEFAULT_MODEL
        loaded = ", ".join(map(repr, names)) or "none"
        raise ModelNotFoundError(
            f"model=None means the only model, but {len(names)} are loaded ({loaded}); name one"
        )

    def _load_lazily(self, name: str) -> None:
        if name in self._configured:
            self._load_configured(name)
        else:
            self.load_model(name, name=name)

    def _load_configured(self, name: str) -> None:
        config = self._configured[name]
        self.load_model(config.model_path or name, name=name, config=config)

    def _check_usable(self) -> None:
        if os.getpid() != self._process_id:
            raise ContextError(
                f"this engine belongs to process {self._process_id} and this is its forked child "
                f"{os.getpid()}, which has none of its threads; make an engine in the child, or "
                "start it with multiprocessing's 'spawn' method"
            )
        if self._closed:
            raise ContextError("the engine is closed; make a new one")


def _any_backend(cache: Path, digests: ContentDigests) -> Backend:
    # imported here so that `import embellama` does not load the native library
    from embellama import agreements  # noqa: PLC0415
    from embellama.backends import ChosenBackend  # noqa: PLC0415

    return ChosenBackend(folder=cache / agreements.FOLDER, digests=digests)


def _checked_name(name: object) -> str:
    if isinstance(name, str):
        return name
    raise InvalidInputTypeError(f"a loaded model is named by a str, not {type(name).__name__}")


def name_of(config: ModelConfig) -> str:
    """Return what a configured model is called: its name, the catalogue's, or the file's stem."""
    if config.model_name is not None:
        return config.model_name
    reference = parse_reference(config.model_path or DEFAULT_MODEL)
    if isinstance(reference, CatalogReference):
        return reference.entry.name
    if isinstance(reference, FileReference):
        return plain_stem(reference.path.name)
    return plain_stem(reference.file or reference.repository)

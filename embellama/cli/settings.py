"""What holds for every command, and the engine that is made of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import typer

from embellama.cli.errors import say

if TYPE_CHECKING:
    from embellama.config import EngineConfig, ModelConfig
    from embellama.engine import EmbeddingEngine
    from embellama.hub.resolve import ResolvedModel
    from embellama.model_info import ModelInfo

_SWITCHES = ("--offline", "--verbose", "-v", "-vv")
_WITH_VALUE = ("--cache-path", "--threads", "--backend")

BackendName: TypeAlias = Literal["auto", "llama", "native"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options.

    Attributes:
        cache_path: Where converted models are kept; None leaves it to the configuration.
        offline: Use only what is stored.
        n_threads: CPU threads; None leaves it to the configuration.
        verbosity: How often ``--verbose`` was given.
        backend: What computes; None leaves it to the configuration.
    """

    cache_path: Path | None = None
    offline: bool = False
    n_threads: int | None = None
    verbosity: int = 0
    backend: BackendName | None = None

    def engine_config(self, *, memory_limit: str | None = None) -> EngineConfig:
        """Return the engine's settings; configured models are loaded only when they are named.

        Args:
            memory_limit: Most bytes of all models; None leaves it to the configuration.
        """
        from embellama.config import EngineConfig  # noqa: PLC0415

        given: dict[str, Any] = {"cache_path": self.cache_path, "memory_limit_bytes": memory_limit}
        if self.offline:
            given["offline"] = True
        return EngineConfig(lazy=True, **given)

    def model_config(self, model: str) -> ModelConfig:
        """Return a model's settings: those configured under its name, or the defaults."""
        from embellama.config import ModelConfig  # noqa: PLC0415

        given = self.model_settings()
        for configured in self.engine_config().all_models:
            if configured.model_name == model:
                settings = configured.model_dump(exclude_unset=True, exclude_none=True)
                return ModelConfig(**{**settings, **given})
        return ModelConfig(**given)

    def model_settings(self) -> dict[str, Any]:
        """Return the settings of every model that the command line gives."""
        options: dict[str, Any] = {"n_threads": self.n_threads, "backend": self.backend}
        return {name: value for name, value in options.items() if value is not None}


def settings_of(ctx: typer.Context) -> Settings:
    """Return the global options of the command line that runs."""
    settings = ctx.obj
    assert isinstance(settings, Settings)
    return settings


def resolve(settings: Settings, model: str, *, offline: bool = False) -> ResolvedModel:
    """Find the model's file, fetching it where it is not stored; steps go to standard error."""
    from embellama.hub.resolve import resolve_model  # noqa: PLC0415

    config = settings.engine_config()
    return resolve_model(
        str(settings.model_config(model).model_path or model),
        cache_path=config.cache_path,
        offline=config.offline or offline,
        progress=say_step,
        progress_bar=is_terminal(sys.stderr),
    )


@contextmanager
def loaded(
    settings: Settings, model: str, *, cache: Path | None = None
) -> Iterator[tuple[EmbeddingEngine, ModelInfo]]:
    """Give an engine with the model loaded, and close it at the end.

    Args:
        settings: The global options.
        model: What to load.
        cache: A file where vectors are kept.
    """
    from embellama.cache import EmbeddingCache  # noqa: PLC0415
    from embellama.engine import EmbeddingEngine  # noqa: PLC0415

    config = settings.model_config(model)
    with ExitStack() as stack:
        vectors = None if cache is None else stack.enter_context(EmbeddingCache.on_disk(cache))
        engine = stack.enter_context(EmbeddingEngine(settings.engine_config(), cache=vectors))
        info = engine.load_model(
            config.model_path or model,
            config=config,
            on_step=say_step,
            progress=is_terminal(sys.stderr),
        )
        for warning in info.warnings:
            say(f"warning: {warning}")
        yield engine, info


def say_step(step: str) -> None:
    """Tell on standard error what is being done."""
    typer.echo(step, err=True)


def is_terminal(stream: object) -> bool:
    """Tell whether a person sits at the other end of a stream, which may be closed."""
    return bool(getattr(stream, "isatty", lambda: False)())


def log_to_stderr(verbosity: int) -> Callable[[], None]:
    """Send the log to standard error if it was asked for; return what ends that."""
    if not verbosity:
        return lambda: None
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)-7s %(message)s"))
    logger = logging.getLogger("embellama")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbosity == 1 else logging.DEBUG)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(level)

    return end


def with_global_options_first(arguments: Sequence[str]) -> list[str]:
    """Move the global options that stand behind the command's name before it, up to a ``--``."""
    rest = iter(arguments)
    moved: list[str] = []
    kept: list[str] = []
    for argument in rest:
        if argument == "--":
            kept += [argument, *rest]
        elif argument in _WITH_VALUE:
            moved += [argument, *[value for value in [next(rest, None)] if value is not None]]
        elif argument in _SWITCHES or argument.startswith(tuple(f"{n}=" for n in _WITH_VALUE)):
            moved.append(argument)
        else:
            kept.append(argument)
    return moved + kept

"""A server from its settings to its end."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from embellama.cache import EmbeddingCache
from embellama.config import EngineConfig, LayeredConfig
from embellama.engine import EmbeddingEngine
from embellama.logs import log
from embellama.server.app import make_app, make_service
from embellama.server.http.listening import make_server
from embellama.server.log_output import written_log
from embellama.server.references import check_references
from embellama.server.service import Service
from embellama.server.settings import ServerConfig
from embellama.server.tracing import Tracing
from embellama.server.variables import unknown_variables

_OF_MODELS = {"models", "model_path", "model_name", "context_size", "n_threads", "use_gpu", "lazy"}
"""Settings of the engine that are about models, which the server loads and shows by itself."""


def serve(
    config: ServerConfig,
    engine_config: EngineConfig,
    *,
    model_settings: Mapping[str, Any] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, and finish what was begun.

    Args:
        config: The server's settings.
        engine_config: The engine's; its models are served where none is named.
        model_settings: Settings that hold for each model.

    Raises:
        ConfigurationError: Settings that cannot be, or an address that cannot be listened at.
        MissingDependencyError: One needs an extra.
    """
    with written_log(config.log_level, config.log_format), ExitStack() as stack:
        cache = _cache(config)
        if cache is not None:
            stack.enter_context(cache)
        # the server decides when what is loaded
        bare = engine_config.model_copy(
            update={"models": (), "model_path": None, "model_name": None, "lazy": False}
        )
        engine = stack.enter_context(EmbeddingEngine(bare, cache=cache))
        service = make_service(
            config,
            engine,
            engine_config,
            model_settings=model_settings,
            cache=cache,
            on_loaded=stack.enter_context(_rare_collections()),
        )
        check_references({each.name: each.reference for each in service.models.all()})
        if config.traces:
            service.tracing = stack.enter_context(Tracing())
        told = described(config, engine_config, service)
        log.info(
            "embellama.server.configured",
            **(told if config.log_format == "json" else _changed(told)),
        )
        unknown = unknown_variables(os.environ)
        if unknown:
            log.warning(
                "embellama.server.unknown_variables",
                variables=sorted(unknown),
                perhaps={name: meant for name, meant in unknown.items() if meant},
                why="nothing reads them: correct their names, or unset them",
            )
        if not config.is_loopback and not service.keys:
            log.warning(
                "embellama.server.exposed",
                host=config.host,
                why="anybody who reaches this address may use the server: start it with "
                "--api-key-file, or listen at 127.0.0.1",
            )

        def started(addresses: list[str]) -> None:
            log.info("embellama.server.started", addresses=addresses)

        def stopping() -> None:
            service.is_stopping = True
            log.info("embellama.server.stopping", n_requests=service.room.n_requests)

        make_server(
            make_app(service),
            config,
            on_started=started,
            on_stopping=stopping,
            unsent=service.room.unsent,
            on_refused=service.metrics.refused,
        ).run()
        log.info("embellama.server.stopped")


@contextmanager
def _rare_collections() -> Iterator[Callable[[], None]]:
    """Keep the garbage collector out of answers; gives what to call when more has come to stay.

    Going through the 100,000 objects of imported modules stops everything for a tenth of a second,
    and by default once in some hundred requests, which leave almost no cycles behind.
    """
    before = gc.get_threshold()
    gc.set_threshold(10_000, 20, 50)

    def set_aside() -> None:
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    try:
        yield set_aside
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def _cache(config: ServerConfig) -> EmbeddingCache | None:
    n_bytes = int(config.vector_cache_bytes)
    if config.vector_cache_path is not None:
        if n_bytes:
            return EmbeddingCache.tiered(config.vector_cache_path, max_memory_bytes=n_bytes)
        return EmbeddingCache.on_disk(config.vector_cache_path)
    return EmbeddingCache.in_memory(max_bytes=n_bytes) if n_bytes else None


def described(
    config: ServerConfig, engine_config: EngineConfig, service: Service
) -> dict[str, Any]:
    """Return every setting and where it came from, the defaults aside; without secrets.

    Args:
        config: The server's.
        engine_config: The engine's; of models, see those that are served.
        service: The server, with its models.
    """
    parts = {
        "server": config.described(),
        "engine": _with_sources(engine_config, _OF_MODELS),
    }
    for served in service.models.all():
        settings = _with_sources(served.config, {"model_path", "model_name"})
        reference = {"value": served.reference, "from": "default"}
        parts[f"model {served.name}"] = {"reference": reference, **settings}
    return {
        **{
            part: {name: setting["value"] for name, setting in settings.items()}
            for part, settings in parts.items()
        },
        "sources": {
            f"{part}: {name}": setting["from"]
            for part, settings in parts.items()
            for name, setting in settings.items()
            if setting["from"] != "default"
        },
    }


def _changed(told: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of what `described` returns the settings that somebody made, for people to read."""
    changed: dict[str, Any] = {}
    for part, settings in told.items():
        if part == "sources":
            continue
        made = {n: v for n, v in settings.items() if f"{part}: {n}" in told["sources"]}
        if part in ("server", "engine"):
            changed |= made
        else:
            changed[part.replace(" ", ".", 1)] = {"reference": settings["reference"], **made}
    return changed


def _with_sources(config: LayeredConfig, without: set[str]) -> dict[str, Any]:
    values = config.model_dump(mode="json", exclude=without)
    return {name: {"value": value, "from": config.sources[name]} for name, value in values.items()}

"""The ASGI application: every endpoint behind its gate, and what runs beside them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route, Router

from embellama.cache import EmbeddingCache
from embellama.config import EngineConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import ConfigurationError
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.gate import Gate
from embellama.server.hosts import Hosts
from embellama.server.keys import Keys
from embellama.server.limits import Room
from embellama.server.metrics import Metrics
from embellama.server.models import ServedModels
from embellama.server.nowhere import Nowhere
from embellama.server.openapi import describe
from embellama.server.rates import TokenBuckets
from embellama.server.references import served_references
from embellama.server.routes import admin, ollama, openai, operations, playground, rerank, tei
from embellama.server.service import Service
from embellama.server.settings import ServerConfig
from embellama.server.token_ids import check_available


async def _openapi(service: Service, exchange: Exchange, body: None) -> Answer:
    return answer(describe(ENDPOINTS, has_keys=bool(service.keys or service.admin_keys)))


ENDPOINTS: tuple[Endpoint, ...] = (
    *openai.ENDPOINTS,
    *tei.ENDPOINTS,
    *ollama.ENDPOINTS,
    *rerank.ENDPOINTS,
    *operations.ENDPOINTS,
    *admin.ENDPOINTS,
    *playground.ENDPOINTS,
    Endpoint("GET", "/openapi.json", _openapi, "This description.", operations.TAG, access="open"),
)
"""All of them. Those that are asked most come first."""


def make_service(
    config: ServerConfig,
    engine: EmbeddingEngine,
    configured: EngineConfig,
    *,
    model_settings: Mapping[str, Any] | None = None,
    cache: EmbeddingCache | None = None,
    on_loaded: Callable[[], None] = lambda: None,
) -> Service:
    """Put the parts of a server together; nothing is loaded yet.

    Args:
        config: The server's settings.
        engine: Computes.
        configured: The engine's settings, whose models are served where none is named.
        model_settings: Settings that hold for each model.
        cache: Where vectors are kept.
        on_loaded: Called after each load of a model, on the event loop.

    Raises:
        ConfigurationError: Settings that cannot be.
        MissingDependencyError: One needs an extra.
    """
    check_available(config.token_ids)
    references, configs = served_references(config.models, configured, model_settings)
    _check_default_prompts(config, references)
    keys = Keys.read(config.api_key_file, [key.get_secret_value() for key in config.api_keys])
    return Service(
        config=config,
        engine=engine,
        models=ServedModels(
            engine,
            references,
            configs=configs,
            aliases=config.aliases,
            keep_alive_s=config.keep_alive_s,
            on_loaded=on_loaded,
            max_waiting=config.max_requests,
            max_wait_s=config.request_timeout_s,
        ),
        hosts=Hosts(
            config.allowed_hosts,
            is_needed=not keys and (config.is_loopback or bool(config.allowed_hosts)),
        ),
        room=Room(
            max_requests=config.max_requests,
            # who waits for most of its time has too little left to be answered in
            max_wait_s=min(config.max_wait_s, config.request_timeout_s / 2),
        ),
        keys=keys,
        admin_keys=keys if config.admin_key_file is None else Keys.read(config.admin_key_file),
        buckets=TokenBuckets(config.rate_limit, config.rate_burst),
        metrics=Metrics(),
        cache=cache,
    )


def _check_default_prompts(config: ServerConfig, names: Collection[str]) -> None:
    for called, prompt in config.default_prompts.items():
        if called not in names and called not in config.aliases:
            raise ConfigurationError(
                f"the default prompt {prompt!r} is for {called!r}, which is not served; there are: "
                f"{', '.join([*names, *config.aliases])}"
            )


def make_app(service: Service) -> Any:
    """Return the ASGI application of a server."""
    by_path: dict[str, list[Endpoint]] = defaultdict(list)
    for endpoint in ENDPOINTS:
        by_path[endpoint.path].append(endpoint)
    routes = [Route(path, Gate(service, found)) for path, found in by_path.items()]

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[dict[str, Any]]:
        beside = [asyncio.ensure_future(service.models.unload_when_idle())]
        if not service.config.lazy:
            service.models.announce()

        def listening() -> None:
            if not service.config.lazy:
                beside.append(asyncio.ensure_future(service.models.start()))

        try:
            # http/listening.py calls it: nothing is loaded where the port is another's
            yield {"on_listening": listening}
        finally:
            for task in beside:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    router = Router(
        routes, redirect_slashes=False, default=Nowhere(service, by_path), lifespan=lifespan
    )
    if not service.config.cors_origins:
        return router
    return CORSMiddleware(
        router,
        allow_origins=service.config.cors_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),  # clients send many of their own, as x-stainless-os
        expose_headers=(
            "retry-after",
            "x-request-id",
            "x-embellama-fingerprint",
            "x-embellama-truncated",
        ),
    )

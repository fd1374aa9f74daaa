"""What administrators do: load, replace and unload models, look at the cache and clear it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from embellama.cache import EmbeddingCache
from embellama.errors import ModelNotFoundError
from embellama.hub.reference import FileReference, parse_reference
from embellama.server.embedding import embed
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.models import OLLAMA_TAG
from embellama.server.problems import Problem
from embellama.server.schemas.admin import (
    AllServedReply,
    CacheReply,
    ClearReply,
    LoadRequest,
    ServedReply,
    UnloadReply,
    UnloadRequest,
    WarmReply,
    WarmRequest,
)
from embellama.server.served import Served
from embellama.server.service import Service

TAG = "Administration"


async def list_served(service: Service, exchange: Exchange, body: None) -> Answer:
    """List what is served, loaded or not."""
    return answer({"models": [_described(service, served) for served in service.models.all()]})


async def load(service: Service, exchange: Exchange, body: LoadRequest) -> Answer:
    """Load a model, or put another one under its name; requests go on meanwhile."""
    reference = None if body.model is None else _named(body.model)
    name = _own_name(service, body.name, is_new=reference is not None)
    served = await service.models.place(name, reference, keep_alive_s=body.keep_alive_s)
    return answer(_described(service, served))


def _own_name(service: Service, called: str, *, is_new: bool) -> str:
    """Return the name of the model that is called so, or the same where it may be a new name.

    Raises:
        Problem: It is another name of a model; or there is none, and it is not to be added.
    """
    models = service.models
    name = called.removesuffix(OLLAMA_TAG)
    if is_new and name not in models.aliases and called not in models.aliases:
        return name if any(served.name == name for served in models.all()) else called
    try:
        served = models.find(called)
    except Problem as problem:
        raise Problem(
            404,
            "model_not_found",
            f"{problem.message}; to serve another one, say what it is: "
            '{"name": …, "model": "minilm:Q8_0"}',
            param="name",
        ) from None
    if served.name not in (called, name):
        raise Problem(
            409,
            "other_name",
            f"{called!r} is another name of the model {served.name!r}; load it under that one",
            param="name",
        )
    return served.name


def _named(text: str) -> str:
    """Refuse what would make the server read a file that a client names."""
    if not text.lower().startswith("hf:") and ("/" in text or "\\" in text or "~" in text):
        raise _no_path()
    try:
        reference = parse_reference(text)
    except ModelNotFoundError as exc:
        raise Problem(404, "model_not_found", str(exc), param="model") from exc
    if isinstance(reference, FileReference):
        raise _no_path()
    return text


def _no_path() -> Problem:
    return Problem(
        400,
        "path_refused",
        "a model on this machine is named when the server is started, not by a request; give a "
        "name of the catalogue, or hf:owner/repo:TYPE",
        param="model",
    )


async def unload(service: Service, exchange: Exchange, body: UnloadRequest) -> Answer:
    """Unload a model when its running work is done; it is loaded again when it is asked for."""
    served = service.models.find(body.name)
    return answer({"name": served.name, "unloaded": await service.models.unload(served)})


def _described(service: Service, served: Served) -> dict[str, Any]:
    return {
        "name": served.name,
        "reference": served.reference,
        "state": service.models.state(served),
        "error": served.error,
        "n_requests": served.n_users,
        "keep_alive_s": served.keep_alive_s,
        "expires_in_s": served.expires_in_s,
        "memory_bytes": None if served.info is None else served.info.memory_bytes,
        "aliases": [alias for alias, name in service.models.aliases.items() if name == served.name],
    }


async def cache_stats(service: Service, exchange: Exchange, body: None) -> Answer:
    """Count hits, misses and what is kept."""
    stats = await asyncio.to_thread(_cache_of(service).stats)
    return answer({**asdict(stats), "hit_rate": stats.hit_rate})


async def cache_clear(service: Service, exchange: Exchange, body: None) -> Answer:
    """Drop every vector that is kept; of a file, for all processes."""
    cache = _cache_of(service)

    def clear() -> int:
        n_entries = cache.stats().n_entries
        cache.clear()
        return n_entries

    return answer({"cleared": await asyncio.to_thread(clear)})


async def cache_warm(service: Service, exchange: Exchange, body: WarmRequest) -> Answer:
    """Embed texts, so that their vectors are there when they are asked for."""
    _cache_of(service)
    done = await embed(service, exchange, body.model, body.input, extension=body.embellama)
    n_new = sum(not report.cached for report in done.texts)
    return answer({"n_texts": len(done.texts), "n_new": n_new})


def _cache_of(service: Service) -> EmbeddingCache:
    if service.cache is None:
        raise Problem(
            404,
            "no_cache",
            "the server keeps no vectors; start it with --cache-size 256MB, or with "
            "--vector-cache FILE",
        )
    return service.cache


ENDPOINTS = (
    Endpoint(
        "GET",
        "/admin/models",
        list_served,
        "List what is served, loaded or not.",
        TAG,
        reply=AllServedReply,
        access="admin",
    ),
    Endpoint(
        "POST",
        "/admin/models/load",
        load,
        "Load a model, or put another one under its name.",
        TAG,
        body=LoadRequest,
        reply=ServedReply,
        access="admin",
    ),
    Endpoint(
        "POST",
        "/admin/models/unload",
        unload,
        "Unload a model.",
        TAG,
        body=UnloadRequest,
        reply=UnloadReply,
        access="admin",
    ),
    Endpoint("GET", "/cache/stats", cache_stats, "Count what is kept.", TAG, reply=CacheReply),
    Endpoint(
        "POST",
        "/cache/clear",
        cache_clear,
        "Drop every vector that is kept.",
        TAG,
        reply=ClearReply,
        access="admin",
    ),
    Endpoint(
        "POST",
        "/cache/warm",
        cache_warm,
        "Embed texts, so that their vectors are there.",
        TAG,
        body=WarmRequest,
        reply=WarmReply,
    ),
)

"""Ollama's API: which models there are, and which of them are loaded.

Source of what it does: server/routes.go of ollama/ollama.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version as installed_version
from typing import Any

from embellama.errors import ModelNotFoundError
from embellama.model_info import ModelInfo
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.problems import Problem, ollama_error
from embellama.server.schemas.ollama import (
    MAX_KEEP_ALIVE_S,
    ProcessesReply,
    ShowReply,
    ShowRequest,
    TagsReply,
    VersionReply,
)
from embellama.server.served import Served
from embellama.server.service import Service

TAG = "Ollama"

FORM = b"application/x-www-form-urlencoded"
"""What curl calls a body that nobody named, as in Ollama's examples."""

TYPES = (b"application/json", FORM)

UNKNOWN_DIGEST = "0" * 32
"""Of a model that was not loaded yet: Ollama's own client cuts twelve characters off it."""


def check_sender(exchange: Exchange) -> None:
    """Refuse what a browser sends to a stranger without asking: a page may post forms anywhere.

    Raises:
        Problem: It is such a request; 415.
    """
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == FORM and b"origin" in exchange.headers:
        raise Problem(
            415,
            "unsupported_media_type",
            "a page sent JSON as a form; send it with 'Content-Type: application/json'",
        )


async def tags(service: Service, exchange: Exchange, body: None) -> Answer:
    """List what is served, under every name it has."""
    aliases = service.models.aliases.items()
    named = [(served.name, served) for served in service.models.all()]
    named += [(alias, service.models.find(name)) for alias, name in aliases]
    return answer({"models": [_tag(service, name, served) for name, served in named]})


def _tag(service: Service, name: str, served: Served) -> dict[str, Any]:
    info = served.info
    return {
        "name": _tagged(name),
        "model": _tagged(name),
        "modified_at": _written(served.loaded_at or service.started_at),
        "size": info.size_bytes if info is not None else 0,
        "digest": info.fingerprint if info is not None else UNKNOWN_DIGEST,
        "details": _details(info),
    }


async def processes(service: Service, exchange: Exchange, body: None) -> Answer:
    """List what is loaded, the one that stays longest first."""
    found = []
    for served in service.models.all():
        try:
            found.append((served, service.engine.get_model_info(served.name)))
        except ModelNotFoundError:
            continue  # it is not loaded
    now_s = time.time()
    stays = sorted(found, key=lambda pair: _stays_s(pair[0]), reverse=True)
    return answer(
        {
            "models": [
                {
                    "name": _tagged(served.name),
                    "model": _tagged(served.name),
                    "size": info.memory_bytes,
                    "digest": info.fingerprint,
                    "details": _details(info),
                    "expires_at": _written(now_s, in_s=_stays_s(served)),
                    "size_vram": _vram_bytes(info),
                    "context_length": info.n_ctx,
                }
                for served, info in stays
            ]
        }
    )


def _stays_s(served: Served) -> float:
    left = served.expires_in_s
    return MAX_KEEP_ALIVE_S if left is None else left


def _vram_bytes(info: ModelInfo) -> int:
    if not info.n_layers_offloaded:
        return 0
    return info.memory_bytes * info.n_layers_offloaded // max(info.n_layers_offloadable, 1)


async def show(service: Service, exchange: Exchange, body: ShowRequest) -> Answer:
    """Describe one model. Nothing is loaded for it."""
    check_sender(exchange)
    name = body.model or body.name
    if not name:
        raise Problem(400, "invalid_request", "model is required", param="model")
    served = service.models.find(name)
    makes_vectors = served.info is None or served.info.pooling_type != "rank"
    return answer(
        {
            "license": served.info.license or "" if served.info is not None else "",
            "modelfile": "",
            "parameters": "",
            "template": "",
            "details": _details(served.info),
            "model_info": _facts(served.info),
            "capabilities": ["embedding"] if makes_vectors else [],
            "modified_at": _written(served.loaded_at or service.started_at),
        }
    )


def _facts(info: ModelInfo | None) -> dict[str, Any]:
    """Return what GGUF's own keys say of a model."""
    if info is None:
        return {}
    return {
        "general.architecture": info.architecture,
        f"{info.architecture}.block_count": info.n_layer,
        f"{info.architecture}.context_length": info.n_ctx_train,
        f"{info.architecture}.embedding_length": info.n_embd,
        f"{info.architecture}.attention.head_count": info.n_head,
        f"{info.architecture}.attention.causal": info.causal,
    }


async def version(service: Service, exchange: Exchange, body: None) -> Answer:
    """Tell embellama's version."""
    return answer({"version": installed_version("embellama")})


def _tagged(name: str) -> str:
    """Write a model's name as Ollama does, never without a tag."""
    return name if ":" in name else f"{name}:latest"


def _details(info: ModelInfo | None) -> dict[str, Any]:
    family = info.architecture if info is not None else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": "",
        "quantization_level": info.file_type if info is not None else "",
    }


def _written(epoch_s: float, *, in_s: float = 0.0) -> str:
    """Write a time as RFC 3339 has it."""
    return (datetime.fromtimestamp(epoch_s, UTC) + timedelta(seconds=in_s)).isoformat()


ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/show",
        show,
        "Describe a model.",
        TAG,
        body=ShowRequest,
        reply=ShowReply,
        error_form=ollama_error,
        content_types=TYPES,
    ),
    Endpoint(
        "GET",
        "/api/tags",
        tags,
        "List the models.",
        TAG,
        reply=TagsReply,
        error_form=ollama_error,
    ),
    Endpoint(
        "GET",
        "/api/ps",
        processes,
        "List the models that are loaded.",
        TAG,
        reply=ProcessesReply,
        error_form=ollama_error,
    ),
    Endpoint(
        "GET",
        "/api/version",
        version,
        "embellama's version.",
        TAG,
        reply=VersionReply,
        error_form=ollama_error,
    ),
)

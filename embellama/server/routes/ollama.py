"""Ollama's API: embeddings.

Source of what it does: server/routes.go, server/sched.go and docs/api.md of ollama/ollama.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from embellama.model_info import ModelInfo
from embellama.server.embedding import check_count, details_of, embed, writable
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.options import overflow_of
from embellama.server.problems import ollama_error
from embellama.server.routes import ollama_models
from embellama.server.routes.ollama_models import TAG, TYPES, check_sender
from embellama.server.schemas.common import NO_EXTENSION, Extension
from embellama.server.schemas.ollama import (
    EmbeddingsReply,
    EmbeddingsRequest,
    EmbedReply,
    EmbedRequest,
)
from embellama.server.service import Service


async def embed_inputs(service: Service, exchange: Exchange, body: EmbedRequest) -> Answer:
    """Embed what the request has, in its order. Without any it loads the model."""
    given = [body.input] if body.input and isinstance(body.input, str) else body.input
    texts = list(given or [])
    async with _ready(service, exchange, body, n_texts=len(texts)) as info:
        loaded_s = time.perf_counter()
        if not texts:
            return answer({"model": body.model, "embeddings": []})
        done = await embed(
            service,
            exchange,
            body.model,
            texts,
            extension=_extension(body, info),
            dimensions=_cut_to(body.dimensions, info),
            normalization="l2",
            overflow="error" if body.truncate is False else "truncate",
        )
    content: dict[str, Any] = {
        "model": body.model,
        "embeddings": list(writable(done.vectors)),
        "total_duration": _ns(time.perf_counter() - exchange.started_s),
        "load_duration": _ns(loaded_s - exchange.started_s),
        "prompt_eval_count": done.usage.n_tokens,
    }
    if body.embellama is not None and body.embellama.details:
        content["embellama"] = details_of(done)
    return answer(content)


async def embed_prompt(service: Service, exchange: Exchange, body: EmbeddingsRequest) -> Answer:
    """Embed one text, its vector not scaled, as old clients have it. Without one, load the model.

    Source: the example in Ollama's docs/api.md, which is longer than 1; issue 8094 of
    ollama/ollama, where its maintainers say so.
    """
    async with _ready(service, exchange, body, n_texts=1) as info:
        if not body.prompt:
            return answer({"embedding": []})
        done = await embed(
            service,
            exchange,
            body.model,
            [body.prompt],
            extension=_extension(body, info),
            normalization="none",
            overflow=overflow_of(body.truncate),
        )
    content: dict[str, Any] = {"embedding": writable(done.vectors)[0]}
    if body.embellama is not None and body.embellama.details:
        content["embellama"] = details_of(done)
    return answer(content)


@asynccontextmanager
async def _ready(
    service: Service, exchange: Exchange, body: EmbedRequest | EmbeddingsRequest, *, n_texts: int
) -> AsyncIterator[ModelInfo]:
    """Hold the model of a request, kept from now on for as long as the request says."""
    check_sender(exchange)
    served = service.models.find(body.model)
    exchange.model = served.name
    check_count(service, n_texts)
    async with service.models.use(
        served, within_s=exchange.remaining_s, cost=exchange.n_body_bytes
    ) as info:
        if body.keep_alive is not None:
            served.keep_alive_s = body.keep_alive
        yield info


def _extension(body: EmbedRequest | EmbeddingsRequest, info: ModelInfo) -> Extension:
    """Return embellama's part of a request, with what Ollama lets a client do beside it."""
    given = body.embellama or NO_EXTENSION
    # Ollama cuts the vectors of any model, trained for it or not
    changes: dict[str, Any] = {"force_dimensions": True}
    limit = body.options.num_ctx if body.options is not None else None
    if given.max_tokens is None and limit is not None and 0 < limit < info.n_ctx:
        changes["max_tokens"] = limit
    return given.model_copy(update=changes)


def _cut_to(dimensions: int | None, info: ModelInfo) -> int | None:
    """Return to how many components vectors are cut; more than there are, or none, are no cut."""
    return dimensions if dimensions is not None and 0 < dimensions < info.n_embd else None


def _ns(duration_s: float) -> int:
    return round(duration_s * 1e9)


ENDPOINTS = (
    Endpoint(
        "POST",
        "/api/embed",
        embed_inputs,
        "Embed texts.",
        TAG,
        body=EmbedRequest,
        reply=EmbedReply,
        error_form=ollama_error,
        content_types=TYPES,
    ),
    Endpoint(
        "POST",
        "/api/embeddings",
        embed_prompt,
        "Embed a text, its vector not scaled.",
        TAG,
        body=EmbeddingsRequest,
        reply=EmbeddingsReply,
        error_form=ollama_error,
        content_types=TYPES,
    ),
    *ollama_models.ENDPOINTS,
)

"""OpenAI's API: embeddings, and the list of models."""

from __future__ import annotations

import base64
from typing import Any, cast

from numpy.typing import NDArray

from embellama.server.embedding import details_of, embed, writable
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.problems import Problem
from embellama.server.schemas.openai import EmbeddingsReply, EmbeddingsRequest, Model, ModelsReply
from embellama.server.served import Served
from embellama.server.service import Service
from embellama.server.token_ids import Item

TAG = "OpenAI"


async def embeddings(service: Service, exchange: Exchange, body: EmbeddingsRequest) -> Answer:
    """Embed what the request has, in its order."""
    done = await embed(
        service,
        exchange,
        body.model,
        _items(body.input),
        extension=body.embellama,
        dimensions=body.dimensions,
    )
    rows = writable(done.vectors)
    written: list[Any]
    written = [base64_of(row) for row in rows] if body.encoding_format == "base64" else list(rows)
    content: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(written)
        ],
        "model": body.model or done.model,
        "usage": {"prompt_tokens": done.usage.n_tokens, "total_tokens": done.usage.n_tokens},
    }
    if body.embellama is not None and body.embellama.details:
        content["embellama"] = details_of(done)
    return answer(content)


def base64_of(row: NDArray[Any]) -> str:
    """Return the base64 of a vector's little-endian bytes: four a float, one an integer."""
    little = row.astype(row.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def _items(given: str | list[str] | list[int] | list[list[int]]) -> list[Item]:
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return list(cast("list[str] | list[list[int]]", given))


async def models(service: Service, exchange: Exchange, body: None) -> Answer:
    """List what is served, under every name that it was given."""
    named = [(served.name, served) for served in service.models.all()]
    named += [(alias, service.models.find(name)) for alias, name in service.models.aliases.items()]
    return answer(
        {"object": "list", "data": [_described(service, name, served) for name, served in named]}
    )


async def model(service: Service, exchange: Exchange, body: None) -> Answer:
    """Describe one model."""
    name = exchange.path_params["id"]
    if not name:
        raise Problem(404, "model_not_found", "the path names no model; GET /v1/models lists them")
    return answer(_described(service, name, service.models.find(name)))


def _described(service: Service, name: str, served: Served) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": int(served.loaded_at or service.started_at),
        "owned_by": "embellama",
        "state": service.models.state(served),
    }
    info = served.info
    if info is not None:
        described |= {
            "n_embd": info.n_embd,
            "n_ctx": info.n_ctx,
            "size_bytes": info.size_bytes,
            "file_type": info.file_type,
            "pooling_type": info.pooling_type,
            "prompts": dict(info.prompts),
            "matryoshka_dims": list(info.matryoshka_dims),
            "fingerprint": info.fingerprint,
        }
    return described


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/embeddings",
        embeddings,
        "Embed texts.",
        TAG,
        body=EmbeddingsRequest,
        reply=EmbeddingsReply,
    ),
    Endpoint("GET", "/v1/models", models, "List the models.", TAG, reply=ModelsReply),
    Endpoint("GET", "/v1/models/{id:path}", model, "Describe a model.", TAG, reply=Model),
)

"""OpenAI's embeddings and models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embellama.server.schemas.common import Extension, ModelName, Reply, Request, TextsOrIds


class EmbeddingsRequest(Request):
    """``POST /v1/embeddings``."""

    input: TextsOrIds
    model: ModelName | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, lt=2**31)
    user: str | None = None
    embellama: Extension | None = None


class Embedding(Reply):
    """One vector: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(Reply):
    """Tokens that were embedded, special tokens and prompts included."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(Reply):
    """The vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Model(Reply):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsReply(Reply):
    """All of them."""

    object: Literal["list"]
    data: list[Model]

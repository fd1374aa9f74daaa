"""Ollama's requests and answers, as far as they are about embeddings and models."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from embellama.server.schemas.common import Extension, ModelName, Reply, Request, TextOrTexts
from embellama.server.served import FOREVER

_GO_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_GO_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_GO_DURATION = re.compile(rf"([-+]?)((?:{_GO_PART.pattern})+)", re.ASCII)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?", re.ASCII)

MAX_KEEP_ALIVE_S = 9_223_372_036.0
"""Source: the largest ``time.Duration`` of Go, 2^63 - 1 nanoseconds."""


def keep_alive_seconds(value: object) -> object:
    """Return the seconds of ``"5m"``, ``"1h30m"``, ``"90"`` or ``90``; -1 for all below zero.

    Source: ``Duration`` in Ollama's api/types.go, and ``time.ParseDuration`` of Go. What is no
    duration is returned as it is, to be refused.
    """
    if isinstance(value, str):
        found = _GO_DURATION.fullmatch(value.strip())
        if found:
            parts = _GO_PART.findall(found[2])
            total = sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
            value = -total if found[1] == "-" else total
        elif _NUMBER.fullmatch(value.strip()):
            value = float(value)
    if isinstance(value, str):
        raise ValueError(
            f"{value[:100]!r} is no duration; give one like '5m', seconds, 0 to unload the model "
            "after this, or -1 to keep it for ever"
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        # no float is as large as JSON's integers may be
        return FOREVER if value < 0 else float(min(value, 2 * MAX_KEEP_ALIVE_S))
    return value


KeepAlive = Annotated[
    Annotated[float, Field(ge=FOREVER, le=MAX_KEEP_ALIVE_S)] | None,
    BeforeValidator(keep_alive_seconds, json_schema_input_type=float | str | None),
]
"""Seconds without a request after which the model is unloaded; -1: never."""

GivenModel = Annotated[ModelName, Field(min_length=1)]


def _whole_number(value: object) -> object:
    """Take 2048.0 for 2048, as Ollama takes every number of JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Options(Request):
    """Settings of a model for this request; the others are about generating text.

    Attributes:
        num_ctx: A lower limit of a text's tokens than the model's; 0 and below: the model's.
    """

    num_ctx: Annotated[
        Annotated[int, Field(ge=-(2**31), lt=2**31)] | None, BeforeValidator(_whole_number)
    ] = None


class EmbedRequest(Request):
    """``POST /api/embed``."""

    model: GivenModel
    input: TextOrTexts | None = None
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=-(2**31), lt=2**31)
    options: Options | None = None
    keep_alive: KeepAlive = None
    embellama: Extension | None = None


class EmbedReply(Reply):
    """Vectors of length 1 in the order of the inputs; durations are nanoseconds."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0


class EmbeddingsRequest(Request):
    """``POST /api/embeddings``, which Ollama keeps for old clients; ``truncate`` is not its own."""

    model: GivenModel
    prompt: str | None = None
    truncate: bool | None = None
    options: Options | None = None
    keep_alive: KeepAlive = None
    embellama: Extension | None = None


class EmbeddingsReply(Reply):
    """One vector as the model gives it, of any length; none for an empty prompt."""

    embedding: list[float]


class Details(Reply):
    """What a model is made of; empty until it was loaded once."""

    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Tag(Reply):
    """A model that is served."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details


class TagsReply(Reply):
    """All of them."""

    models: list[Tag]


class Process(Reply):
    """A model that is loaded."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class ProcessesReply(Reply):
    """All of them, the one that stays longest first."""

    models: list[Process]


class ShowRequest(Request):
    """``POST /api/show``; old clients say ``name``."""

    model: ModelName | None = None
    name: ModelName | None = None


class ShowReply(Reply):
    """A model, described."""

    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class VersionReply(Reply):
    """embellama's version."""

    version: str

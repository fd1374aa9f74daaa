"""Loading, unloading, and the cache of vectors."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from embellama.server.schemas.common import Extension, ModelName, OwnRequest, Reply, Texts

_NAME = re.compile(r"[\w.:@+-][\w.:@+/-]{0,199}")


def _sound(name: str) -> str:
    if _NAME.fullmatch(name) is None or ".." in name:
        raise ValueError(
            "a model's name has 1 to 200 letters, digits and . : @ + - _ /, and neither begins "
            "with / nor has .. in it"
        )
    return name


ServedName = Annotated[str, AfterValidator(_sound), Field(json_schema_extra={"maxLength": 200})]
"""What a model can be called. A name is never read as a path, and does not look like one."""


class LoadRequest(OwnRequest):
    """``POST /admin/models/load``.

    Attributes:
        name: What clients call the model.
        model: What to load under that name: of the catalogue (``"minilm:Q8_0"``) or the hub
            (``"hf:owner/repo:TYPE"``); what it was before unless given.
        keep_alive_s: Idle seconds after which it is unloaded; -1: never.
    """

    name: ServedName
    model: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    keep_alive_s: float | None = Field(default=None, ge=-1.0, le=10**9)


class UnloadRequest(OwnRequest):
    """``POST /admin/models/unload``."""

    name: ModelName


class ServedReply(Reply):
    """A model, as an administrator sees it."""

    name: str
    reference: str
    state: str
    error: str | None
    n_requests: int
    keep_alive_s: float
    expires_in_s: float | None
    memory_bytes: int | None


class AllServedReply(Reply):
    """All of them."""

    models: list[ServedReply]


class UnloadReply(Reply):
    """Whether there was something to unload."""

    name: str
    unloaded: bool


class CacheReply(Reply):
    """What the cache has done and holds."""

    hits: int
    misses: int
    hit_rate: float
    n_entries: int
    size_bytes: int


class ClearReply(Reply):
    """How much there was."""

    cleared: int


class WarmRequest(OwnRequest):
    """``POST /cache/warm``: texts whose vectors will be asked for, with the same options."""

    input: Texts
    model: ModelName | None = None
    embellama: Extension | None = None


class WarmReply(Reply):
    """How many of the texts were not there yet."""

    n_texts: int
    n_new: int

"""An endpoint as data: where it is, what it takes and gives, and who does the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, TypeAdapter

from embellama.server.exchange import Answer, Exchange
from embellama.server.problems import ErrorForm, openai_error
from embellama.server.service import Service

Access: TypeAlias = Literal["open", "key", "admin"]
"""Who may ask: anybody, who has a key where there are any, or who may administrate."""

Handler: TypeAlias = Callable[[Service, Exchange, Any], Awaitable[Answer]]


@dataclass(frozen=True, eq=False)
class Endpoint:
    """One method of one path.

    Attributes:
        method: ``"GET"`` or ``"POST"``.
        path: Where, with ``{name}`` or ``{name:path}`` for what varies.
        handler: Does the work.
        summary: What it does, in a line.
        tag: The API that it belongs to.
        body: What it takes; None: nothing.
        reply: What it gives, for the schema: a class, or anything pydantic makes a schema of.
        media_type: What kind of bytes it gives.
        error_form: How the clients of its API want errors.
        access: Who may ask.
        content_types: What the body may be called; others are refused.
        statuses: Statuses it answers with when all is well.
        is_probe: Whether machines ask it every few seconds: logged for debugging alone, not traced,
            and not under way.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Handler
    summary: str
    tag: str
    body: type[BaseModel] | None = None
    reply: Any = None
    media_type: str = "application/json"
    error_form: ErrorForm = openai_error
    access: Access = "key"
    content_types: Sequence[bytes] = (b"application/json",)
    statuses: Sequence[int] = (200,)
    is_probe: bool = False

    def __post_init__(self) -> None:
        adapter = None if self.body is None else TypeAdapter(self.body)
        object.__setattr__(self, "adapter", adapter)

    adapter: TypeAdapter[Any] | None = None

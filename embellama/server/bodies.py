"""A request's body: that it is JSON, its bytes as they come, and what of it is wrong, in words."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Exchange
from embellama.server.problems import Problem
from embellama.server.schemas.common import Extension
from embellama.server.schemas.rerank import RerankExtension
from embellama.server.service import Service

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

CLIENT_CLOSED = 499
"""What is noted for a request whose client went away; nobody is told. Source: nginx."""

_NAMED_FAULTS = 3

_MAX_FAULTS = 1000

_PARTS_A_TOKEN = 2
"""Lists, objects and commas of a body for each token that its texts may have."""

_PARTS_FREE = 1 << 18
"""So many in any case: they are read in a tenth of a second."""

_MAX_SHOWN = 40
"""Characters of what a client sent that an error says back."""

_PLAIN = (b"", b"identity")


def gone() -> Problem:
    """Return what is noted of a request whose client went away."""
    return Problem(CLIENT_CLOSED, "client_closed", "the client went away")


async def read(service: Service, exchange: Exchange, receive: Receive) -> bytes:
    """Read a body, for which there is memory.

    Raises:
        Problem: It is too large, or there are too many at the moment, or its client went away.
    """
    limit = service.config.max_body_bytes
    announced = exchange.headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > limit:
        raise _too_large(int(announced), limit)
    parts: list[bytes] = []
    n_bytes = 0
    with service.room.body(limit) as came:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise gone()
            part = message.get("body", b"")
            n_bytes += len(part)
            if n_bytes > limit:
                raise _too_large(n_bytes, limit)
            came(n_bytes)
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)


def parsed(endpoint: Endpoint, body: bytes) -> Any:
    """Read a body as what the endpoint takes.

    On the event loop: a thread would hold the interpreter just as long, all in one piece.

    Raises:
        Problem: It is no JSON, or not of that form; 400.
    """
    assert endpoint.adapter is not None
    try:
        return endpoint.adapter.validate_json(body)
    except ValidationError as exc:
        if exc.error_count() > _MAX_FAULTS:
            # not even looked at: each costs more than the part of the body that it is about
            raise Problem(
                400, "invalid_request", f"{exc.error_count():,} values of the body are wrong"
            ) from None
        faults = exc.errors(include_url=False, include_context=False)
        if faults[0]["type"] == "json_invalid":
            raise Problem(
                400, "invalid_json", f"the body is no sound JSON: {faults[0]['msg']}"
            ) from None
        named = "; ".join(_said(fault, endpoint.body) for fault in faults[:_NAMED_FAULTS])
        more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise Problem(
            400, "invalid_request", f"{named}{more}", param=_where(faults[0]["loc"])
        ) from None


def _said(fault: Mapping[str, Any], body: type[BaseModel] | None) -> str:
    """Say where a fault is, what may stand there, and what does."""
    where, kind, message = _where(fault["loc"]), fault["type"], fault["msg"]
    if kind == "extra_forbidden":
        known = _known_fields(body, is_own=len(fault["loc"]) > 1)
        return f"{where}: there is no such field; there are {known}"
    if kind == "value_error":
        return f"{where}: {message.removeprefix('Value error, ')}"  # it is in words of ours
    if kind == "too_short" and fault["input"] == []:
        return f"{where}: the list is empty; give at least one"
    if kind in ("missing", "too_short", "too_long"):
        return f"{where}: {message}"  # which says what there is
    return f"{where}: {message}, not {_shown(fault['input'])}"


def _known_fields(body: type[BaseModel] | None, *, is_own: bool) -> str:
    """Name the fields of a body that is so strict, or of embellama's own part of another."""
    if body is not None and not is_own:
        return ", ".join(body.model_fields)
    given = None if body is None else body.model_fields.get("embellama")
    is_rerank = given is not None and RerankExtension in get_args(given.annotation)
    return ", ".join((RerankExtension if is_rerank else Extension).model_fields)


def _shown(value: object) -> str:
    """Write a wrong value as JSON does if it is short, and its kind if it is not."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        if not value:
            return "an empty list"
        first = "a list" if isinstance(value[0], list) else _shown(value[0])
        return f"a list that begins with {first}"
    shown = json.dumps(value)
    if len(shown) <= _MAX_SHOWN:
        return shown
    return f"a string of {len(value)} characters" if isinstance(value, str) else "such a number"


def check_parts(body: bytes, max_tokens: int) -> None:
    """Refuse bodies of so many parts that reading them would hold up everybody for seconds.

    Raises:
        Problem: There are more than any request within the token limit has; 413.
    """
    most = max(_PARTS_A_TOKEN * max_tokens, _PARTS_FREE)
    if len(body) <= most:
        return
    n_parts = sum(map(body.count, (b",", b"[", b"{")))
    if n_parts > most:
        raise Problem(
            413,
            "too_many_parts",
            f"the body has {n_parts:,} commas and brackets, and the limit is {most:,}; send the "
            "texts in several requests",
        )


def _where(location: Sequence[str | int]) -> str:
    """Write a place in a body as programs would, without pydantic's names of alternatives."""
    parts = [
        part if isinstance(part, int) else part[:_MAX_SHOWN]
        for part in location
        if isinstance(part, int) or part.isidentifier()
    ]
    written = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return written.lstrip(".") or "body"


def check_headers(endpoint: Endpoint, exchange: Exchange) -> None:
    """Refuse a body that is no JSON, or compressed, by its headers.

    Raises:
        Problem: It is; 415.
    """
    given = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if given and given not in endpoint.content_types:
        shown = given[:100].decode("latin-1")
        raise Problem(
            415,
            "unsupported_media_type",
            f"the body is sent as {shown!r}; send JSON, with 'Content-Type: application/json'",
        )
    coding = exchange.headers.get(b"content-encoding", b"").strip().lower()
    if coding not in _PLAIN:
        shown = coding[:100].decode("latin-1")
        raise Problem(
            415,
            "unsupported_media_type",
            f"the body is compressed, with {shown!r}; send it as it is, without Content-Encoding",
        )


def _too_large(n_bytes: int, limit: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"a body of {n_bytes:,} bytes or more, and the limit is {limit:,}; send the texts in "
        "several requests",
    )

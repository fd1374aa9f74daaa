"""The way of every request: who asks, what is asked, the work, the answer, and a note of it all."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import structlog
from pydantic import ValidationError

from embellama.errors import EmbellamaError
from embellama.logs import log
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.limits import shown_key
from embellama.server.log_output import where
from embellama.server.metrics import OTHER
from embellama.server.problems import RETRY_AFTER_S, ErrorForm, Problem, problem_of
from embellama.server.service import Service

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CLIENT_CLOSED = 499
"""What is noted for a request whose client went away; nobody is told. Source: nginx."""

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_NAMED_FAULTS = 3

_MAX_FAULTS = 1000

_PARTS_A_TOKEN = 2
"""Lists, objects and commas of a body for each token that its texts may have."""
_MAX_SHOWN = 40
"""Characters of what a client sent that an error says back."""


class Gate:
    """All methods of one path, as an ASGI application.

    Args:
        service: What handlers work with.
        endpoints: One for each method.
    """

    def __init__(self, service: Service, endpoints: Sequence[Endpoint]) -> None:
        self._service = service
        self._by_method: Mapping[str, Endpoint] = {e.method: e for e in endpoints}
        self._allowed = ", ".join(
            [*self._by_method, *(["HEAD"] if "GET" in self._by_method else [])]
        )
        self._path = endpoints[0].path
        self._error_form = endpoints[0].error_form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        headers = dict(scope["headers"])
        given_id = headers.get(b"x-request-id", b"")
        exchange = Exchange(
            request_id=given_id.decode("ascii")
            if _REQUEST_ID.fullmatch(given_id)
            else uuid.uuid4().hex,
            headers=headers,
            path_params=scope.get("path_params", {}),
            query=scope.get("query_string", b""),
            client=(scope.get("client") or ("unknown", 0))[0],
            deadline_s=time.monotonic() + self._service.config.request_timeout_s,
        )
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        endpoint = self._by_method.get(method)
        is_probe = endpoint is not None and endpoint.is_probe
        structlog.contextvars.bind_contextvars(request_id=exchange.request_id)
        tracing = None if is_probe else self._service.tracing
        span = None
        if tracing is not None:
            known = "_OTHER" if endpoint is None else method
            span = tracing.begin(known, self._path, scope, exchange)
            structlog.contextvars.bind_contextvars(**tracing.ids(span))
        self._service.metrics.n_in_flight += not is_probe
        try:
            done, problem = await self._outcome(scope["method"], endpoint, exchange, receive)
        finally:
            self._service.metrics.n_in_flight -= not is_probe
        # before the answer, so that whoever has it finds it counted
        self._note(scope["method"], endpoint, exchange, done, problem)
        if tracing is not None:
            status = None if done is None else done.status
            tracing.end(span, exchange, status, None if problem is None else problem.code)
        if done is not None:
            await _send(send, done, exchange)

    async def _outcome(
        self, method: str, endpoint: Endpoint | None, exchange: Exchange, receive: Receive
    ) -> tuple[Answer | None, Problem | None]:
        """Return the answer, if somebody waits for it, and what went wrong, if something did."""
        try:
            if endpoint is None:
                raise Problem(
                    405,
                    "method_not_allowed",
                    f"{method} is not possible here; use {self._allowed}",
                )
            done = await self._answered(endpoint, exchange, receive)
            return done, None if done is not None else _gone()
        except Problem as exc:
            problem = exc
        except EmbellamaError as exc:
            problem = problem_of(exc, field=_texts_field(endpoint))
        except asyncio.CancelledError:
            if not self._service.is_stopping:
                raise
            problem = Problem(
                503,
                "stopping",
                "the server was told to end, and this was not done in time; try again",
                retry_after_s=RETRY_AFTER_S,
            )
        except Exception as exc:  # noqa: BLE001 - the last line of defence, logged
            # not its message, which may quote a text
            log.warning(
                "embellama.request.failed",
                path=self._path,
                error=type(exc).__name__,
                where=where(exc),
            )
            problem = Problem(500, "internal", "something went wrong here; see the log")
        form = self._error_form if endpoint is None else endpoint.error_form
        return self._refused(problem, form), problem

    async def _answered(
        self, endpoint: Endpoint, exchange: Exchange, receive: Receive
    ) -> Answer | None:
        self._authorize(endpoint, exchange)
        body = None
        if endpoint.adapter is not None:
            _check_type(endpoint, exchange)
            data = await self._read(exchange, receive)
            _check_parts(data, self._service.config.max_request_tokens)
            body = parsed(endpoint, data)
        work = endpoint.handler(self._service, exchange, body)
        if endpoint.method == "GET":
            return await work
        return await while_connected(work, receive)

    def _authorize(self, endpoint: Endpoint, exchange: Exchange) -> None:
        service = self._service
        if endpoint.access == "open":
            return
        is_admin = endpoint.access == "admin"
        keys = service.admin_keys if is_admin else service.keys
        if keys:
            name = keys.name_of(shown_key(exchange.headers))
            if name is None and not is_admin:
                name = service.admin_keys.name_of(shown_key(exchange.headers))
            if name is None:
                is_missing = shown_key(exchange.headers) is None
                raise Problem(
                    401,
                    "missing_api_key" if is_missing else "invalid_api_key",
                    "no key was given; send it as 'Authorization: Bearer KEY'"
                    if is_missing
                    else "the key is not one of this server's, or not one for this",
                )
            exchange.client = name
        elif is_admin:
            raise Problem(
                403,
                "no_admin_key",
                "this needs a key, and the server was started without any; start it with "
                "--api-key-file or --admin-key-file",
            )
        service.buckets.take(exchange.client)

    async def _read(self, exchange: Exchange, receive: Receive) -> bytes:
        limit = self._service.config.max_body_bytes
        announced = exchange.headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(int(announced), limit)
        parts: list[bytes] = []
        n_bytes = 0
        with self._service.room.body(limit) as came:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _gone()
                part = message.get("body", b"")
                n_bytes += len(part)
                if n_bytes > limit:
                    raise _too_large(n_bytes, limit)
                came(n_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return parts[0] if len(parts) == 1 else b"".join(parts)

    def _refused(self, problem: Problem, form: ErrorForm) -> Answer | None:
        if problem.status == CLIENT_CLOSED:
            return None
        status, content = form(problem)
        headers = []
        if problem.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, -(-problem.retry_after_s // 1))))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status == 405:
            headers.append((b"allow", self._allowed.encode()))
        return answer(content, status=status, headers=tuple(headers))

    def _note(
        self,
        method: str,
        endpoint: Endpoint | None,
        exchange: Exchange,
        done: Answer | None,
        problem: Problem | None,
    ) -> None:
        total_s = time.perf_counter() - exchange.started_s
        status = CLIENT_CLOSED if done is None else done.status
        metrics = self._service.metrics
        metrics.answered(
            OTHER if endpoint is None else endpoint.method, self._path, status, exchange, total_s
        )
        if problem is not None:
            metrics.refused(problem.status, problem.code)
        if not self._service.config.access_log:
            return
        is_probe = endpoint is not None and endpoint.is_probe
        (log.debug if is_probe else log.info)(
            "embellama.request.answered",
            method=method,
            path=self._path,
            status=status,
            code=None if problem is None else problem.code,
            client=exchange.client,
            model=exchange.model,
            n_texts=exchange.n_texts,
            n_tokens=exchange.n_tokens,
            n_truncated=exchange.n_truncated,
            queue_s=round(exchange.queue_s, 6),
            inference_s=round(exchange.inference_s, 6),
            total_s=round(total_s, 6),
        )


async def while_connected(work: Awaitable[Answer], receive: Receive) -> Answer | None:
    """Wait for an answer as long as there is somebody who wants it.

    Returns:
        The answer; None where the client went away, whose work is cancelled then.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        # it gives back what it holds before it counts as over
        with suppress(asyncio.CancelledError, EmbellamaError, Problem):
            await working
        return None
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def parsed(endpoint: Endpoint, body: bytes) -> Any:
    """Read a body as what the endpoint takes.

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
        named = "; ".join(_said(fault) for fault in faults[:_NAMED_FAULTS])
        more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise Problem(
            400, "invalid_request", f"{named}{more}", param=_where(faults[0]["loc"])
        ) from None


def _said(fault: Mapping[str, Any]) -> str:
    """Say where a fault is, what may stand there, and what does."""
    said = f"{_where(fault['loc'])}: {fault['msg']}"
    if fault["type"] in ("missing", "extra_forbidden", "too_short", "too_long"):
        return said  # which says it already
    return f"{said}, not {_shown(fault['input'])}"


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


def _check_parts(body: bytes, max_tokens: int) -> None:
    """Refuse bodies of so many parts that reading them would hold up everybody for seconds.

    Raises:
        Problem: There are more than any request within the token limit has; 413.
    """
    most = _PARTS_A_TOKEN * max_tokens
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


def _check_type(endpoint: Endpoint, exchange: Exchange) -> None:
    given = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if given and given not in endpoint.content_types:
        shown = given[:100].decode("latin-1")
        raise Problem(
            415,
            "unsupported_media_type",
            f"the body is sent as {shown!r}; send JSON, with 'Content-Type: application/json'",
        )


def _gone() -> Problem:
    return Problem(CLIENT_CLOSED, "client_closed", "the client went away")


def _too_large(n_bytes: int, limit: int) -> Problem:
    return Problem(
        413,
        "body_too_large",
        f"a body of {n_bytes:,} bytes or more, and the limit is {limit:,}; send the texts in "
        "several requests",
    )


def _texts_field(endpoint: Endpoint | None) -> str | None:
    fields = {} if endpoint is None or endpoint.body is None else endpoint.body.model_fields
    names = ("input", "inputs", "documents", "texts", "prompt")
    return next((name for name in names if name in fields), None)


async def _send(send: Send, done: Answer, exchange: Exchange) -> None:
    # the length of a 304 would be that of the 200 (RFC 9110, 8.6)
    length = () if done.status == 304 else ((b"content-length", b"%d" % len(done.body)),)
    await send(
        {
            "type": "http.response.start",
            "status": done.status,
            "headers": [
                (b"content-type", done.media_type),
                *length,
                (b"x-request-id", exchange.request_id.encode()),
                *done.headers,
                *exchange.extra_headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": done.body})

"""The way of every request: who asks, what is asked, the work, the answer, and a note of it all."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import structlog

from embellama.errors import EmbellamaError
from embellama.logs import log
from embellama.server.bodies import (
    CLIENT_CLOSED,
    Receive,
    check_headers,
    check_parts,
    gone,
    parsed,
    read,
)
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.keys import shown_key
from embellama.server.log_output import where
from embellama.server.metrics import OTHER
from embellama.server.problems import RETRY_AFTER_S, ErrorForm, Problem, problem_of
from embellama.server.service import Service

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


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
        form = self._error_form if endpoint is None else endpoint.error_form
        try:
            if endpoint is None:
                raise Problem(
                    405,
                    "method_not_allowed",
                    f"{method} is not possible here; use {self._allowed}",
                )
            done = await self._answered(endpoint, exchange, receive)
            return done, None if done is not None else gone()
        except Problem as exc:
            problem = exc
            _let_go(exc)
        except EmbellamaError as exc:
            problem = problem_of(exc, field=_texts_field(endpoint), form=form)
            _let_go(exc)
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
            _let_go(exc)
        return self._refused(problem, form), problem

    async def _answered(
        self, endpoint: Endpoint, exchange: Exchange, receive: Receive
    ) -> Answer | None:
        self._authorize(endpoint, exchange)
        body = None
        if endpoint.adapter is not None:
            check_headers(endpoint, exchange)
            self._service.room.check_unsent()
            data = await read(self._service, exchange, receive)
            # how long that took is the client's own affair
            exchange.deadline_s = time.monotonic() + self._service.config.request_timeout_s
            exchange.n_body_bytes = len(data)
            check_parts(data, self._service.config.max_request_tokens)
            body = parsed(endpoint, data)
        work = endpoint.handler(self._service, exchange, body)
        if endpoint.method == "GET":
            return await work
        return await while_connected(work, receive)

    def _authorize(self, endpoint: Endpoint, exchange: Exchange) -> None:
        service = self._service
        if endpoint.access == "open":
            return
        service.hosts.check(exchange.headers)
        is_admin = endpoint.access == "admin"
        keys = service.admin_keys if is_admin else service.keys
        if keys:
            name = keys.name_of(shown_key(exchange.headers))
            if name is None:
                others = service.keys if is_admin else service.admin_keys
                name = others.name_of(shown_key(exchange.headers))
                if name is not None and is_admin:
                    exchange.client = name
                    raise Problem(
                        403,
                        "no_admin_key",
                        f"the key {name!r} is a client's, and this needs an administrator's; "
                        "show one of --admin-key-file",
                    )
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
            metrics.refused(problem.status, problem.code, exchange.model)
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


def _let_go(error: BaseException) -> None:
    """Forget where an error, and those behind it, were raised. Their frames hold them in turn.

    Only the garbage collector would free them, and refusals come by the hundred a second.
    """
    left: list[BaseException] = [error]
    seen: set[int] = set()  # an error may be behind itself: "raise exc.__cause__ from exc"
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += [other for other in (one.__cause__, one.__context__) if other is not None]


async def while_connected(work: Awaitable[Answer], receive: Receive) -> Answer | None:
    """Wait for an answer as long as there is somebody who wants it.

    Returns:
        The answer; None where the client went away, whose work is cancelled then.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        # it gives back what it holds before it counts as over
        with suppress(asyncio.CancelledError, EmbellamaError, Problem):
            await working
        return None
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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

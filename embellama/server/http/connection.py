"""One connection: what is too much, or takes too long, before it is a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from embellama.logs import log
from embellama.server.limits import Unsent
from embellama.server.patience import Limit, ReadingClient
from embellama.server.problems import Problem, response_bytes
from embellama.server.settings import ServerConfig

MAX_HEADER_BYTES = 64 << 10
"""Request line and headers together. Source of the size: Node.js has 16 KiB, nginx 4 x 8 KiB."""

MAX_HEADERS = 100
"""Source: the default of Apache's LimitRequestFields."""

MAX_PIPELINED = 100
"""Requests of one connection that may wait for their turn; after more of them it is closed."""

LINGER_S = 1.0
"""How long a refused client may go on sending: closing at once would take the answer from it.

Source: RFC 9112, 9.6.
"""


Refused: TypeAlias = Callable[[int, str], None]
"""Told the status and the code of each `Problem` that no application sees."""


def untold(status: int, code: str) -> None:
    """Tell nobody."""


def guarded(
    config: ServerConfig, *, unsent: Unsent | None = None, on_refused: Refused = untold
) -> type[HttpToolsProtocol]:
    """Return a protocol that ends what takes too long, or is too much, before it is a request."""

    class Guarded(_GuardedProtocol):
        limits = config
        behind = unsent or Unsent()
        tell_refused = staticmethod(on_refused)

    return Guarded


class _GuardedProtocol(HttpToolsProtocol):
    """One connection.

    It is idle, or a request is being read, or one is being answered; the first two have a time
    limit, which nothing that the client sends prolongs.
    """

    limits: ServerConfig
    behind: Unsent
    tell_refused: Refused

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._n_header_bytes = 0
        self._is_reading = False
        self._is_new = False
        self._is_refused = False
        self._refusal: Problem | None = None
        self._running: RequestResponseCycle | None = None
        self._limit = Limit(self.loop, self._too_slow)
        self._reader = ReadingClient(self.loop, self.limits.idle_timeout_s)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        limit = self.limits.max_connections
        if len(self.connections) > 2 * limit:
            transport.abort()
        elif len(self.connections) > limit:
            self._refuse(
                Problem(
                    503,
                    "too_many_connections",
                    f"{limit} connections are open; use one for many requests, or try again later",
                    retry_after_s=1.0,
                )
            )
        else:
            self._limit.set(self.limits.idle_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.end()
        self._reader.end()
        self.behind.drop(self.transport)
        super().connection_lost(exc)
        # which leaves the timer running where the client broke off, for as long as it may be idle
        self._unset_keepalive_if_required()
        # it tells the last request alone, which may wait behind others that were sent ahead
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        # they and this hold each other
        self.cycle = self._running = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._n_header_bytes += len(data)
        self._is_new = False
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._is_reading and self._has_no_headers():
            self._check_header_bytes(self._n_header_bytes)
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self._is_reading:
            if self._is_new:
                self._limit.lift()
                self._limit.set(self.limits.read_timeout_s)
        elif self.cycle is None or self.cycle.response_complete:
            # blank lines, or the rest of what was answered before it was there
            self._limit.set(self.limits.idle_timeout_s)
        else:
            self._limit.lift()

    def _parse(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                data = self._without_upgrade() + data[exc.args[0] :]
                continue
            except httptools.HttpParserError as exc:
                if self._refusal is None:
                    self._refusal = Problem(400, "bad_request", f"this is no sound HTTP: {exc}")
            return

    def _without_upgrade(self) -> bytes:
        """Return the head of a request to upgrade as one that only asks, as RFC 9110, 7.8 has it.

        Java's client offers HTTP/2 with each first request. The parser would end at the head of
        such a one and take its body for another protocol's.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refusal = Problem(400, "bad_request", "this is no proxy")
            return b""
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
        lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _has_no_headers(self) -> bool:
        return "method" not in self.scope

    def _check_header_bytes(self, n_bytes: int) -> None:
        if n_bytes > MAX_HEADER_BYTES and self._refusal is None:
            self._refusal = Problem(
                431,
                "headers_too_large",
                f"the address and headers have {n_bytes:,} bytes or more, and the limit is "
                f"{MAX_HEADER_BYTES:,}",
            )

    # ── what the parser finds ────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_reading = self._is_new = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_no_headers():
            return  # a trailer, which must not pass for a header
        if len(self.headers) < MAX_HEADERS:
            super().on_header(name, value)
        elif self._refusal is None:
            self._refusal = Problem(
                431, "too_many_headers", f"more than {MAX_HEADERS} headers, which is the limit"
            )

    def on_headers_complete(self) -> None:
        # in one piece with what came before, they were not counted on their own
        self._check_header_bytes(
            len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        )
        if self._refusal is None and len(self.pipeline) >= MAX_PIPELINED:
            self._refusal = Problem(400, "too_many_pipelined", "too many requests at once")
        if self._refusal is None and not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_reading = False
        self._n_header_bytes = 0
        if self._refusal is None and not self._has_no_headers():
            super().on_message_complete()

    # ── what takes too long ──────────────────────────────────────────────────────────────────

    def _too_slow(self) -> None:
        if self._is_refused or not self._is_reading:
            self._close()
            return
        limit = self.limits.read_timeout_s
        self._refuse(
            Problem(
                408,
                "request_timeout",
                f"the request was not there within {limit:g} s; send it faster, or in parts",
            )
        )

    def _close(self) -> None:
        self.transport.close()
        self._reader.watch(self.transport)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._reader.watch(self.transport)

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        self._close()

    def pause_writing(self) -> None:
        """Wait for a client that reads its answer slowly, but not for one that does not."""
        super().pause_writing()
        self.behind.add(self.transport)
        self._reader.watch(self.transport)

    def resume_writing(self) -> None:
        """Go on: it has read."""
        super().resume_writing()
        self.behind.drop(self.transport)
        if not self.transport.is_closing():
            self._reader.leave()

    # ── what is refused ──────────────────────────────────────────────────────────────────────

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the application, and read no more."""
        self._is_refused = True
        self._limit.lift()
        self.tell_refused(problem.status, problem.code)
        if self.limits.access_log:
            log.info(
                "embellama.connection.refused",
                status=problem.status,
                code=problem.code,
                client=(self.client or ("unknown", 0))[0],
            )
        cycle = self.cycle
        is_begun = self._is_reading and cycle is not None and cycle.scope is self.scope
        if is_begun:
            # it is with the application, or waits for its turn
            cycle.disconnected = True
            cycle.message_event.set()
        if is_begun and cycle is self._running:
            if cycle.response_started:
                self._close()  # it was answered before it was there
                return
        elif (owed := self._owed(is_begun)) is not None and not owed.response_complete:
            owed.keep_alive = False  # closed after the answers to what came before
            return
        self.transport.write(response_bytes(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._limit.set(LINGER_S)

    def _owed(self, is_begun: bool) -> RequestResponseCycle | None:
        """Return the last request before the refused one, which gives up its place in the line."""
        if not is_begun:
            return self.cycle
        self.pipeline.popleft()
        return self.pipeline[0][0] if self.pipeline else self._running

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

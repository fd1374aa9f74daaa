"""The page to try the models with, at ``/``: its files, a fixed list, and what it shows live."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from importlib.resources import files
from typing import Any

from embellama.server.endpoint import Endpoint, Handler
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.problems import Problem
from embellama.server.schemas.common import Reply
from embellama.server.service import Service

TAG = "Playground"

PAGE = "index.html"

ASSETS = (
    "icon.svg",
    "layout.css",
    "panels.css",
    "results.css",
    "main.js",
    "api.js",
    "colour.js",
    "dom.js",
    "examples.js",
    "heatmap.js",
    "key.js",
    "labels.js",
    "lines.js",
    "live.js",
    "map.js",
    "models.js",
    "pairs.js",
    "search.js",
    "snippets.js",
    "vectors.js",
)
"""Everything that the page loads. Nothing else is read, whatever a client asks for."""

MEDIA_TYPES = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page talks to this server alone, and no text can become a script or a style."""

SAFETY = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class PlaygroundStats(Reply):
    """What the server is doing, and has done since its models were loaded.

    Attributes:
        at_s: When, on a clock that never goes back; differences alone mean something.
        n_texts: Texts answered.
        n_tokens: Tokens computed.
        n_requests: Requests that compute or wait.
        n_waiting_texts: Texts of theirs.
        wait_s: Seconds that a request of many texts would wait now, as the pace of late tells.
        models: State by name.
    """

    at_s: float
    n_texts: int
    n_tokens: int
    n_requests: int
    n_waiting_texts: int
    wait_s: float
    models: dict[str, str]


@cache
def _file(name: str) -> tuple[bytes, bytes]:
    """Return the content of a file of the page, and its entity tag."""
    content = (files("embellama.server") / "playground" / name).read_bytes()
    return content, b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()


def _sender(name: str) -> Handler:
    """Return a handler that sends one file, or says that the client's copy is still right."""
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]

    async def send(service: Service, exchange: Exchange, body: None) -> Answer:
        _check_wanted(service)
        content, tag = _file(name)
        # always asked again, so that the files of two versions never meet in a browser
        headers = ((b"etag", tag), (b"cache-control", b"no-cache"), *SAFETY)
        if _is_known(exchange.headers.get(b"if-none-match", b""), tag):
            return Answer(b"", 304, media_type, headers)
        return Answer(content, 200, media_type, headers)

    return send


def _is_known(given: bytes, tag: bytes) -> bool:
    """Tell whether If-None-Match names a tag; weak tags are compared too (RFC 9110, 13.1.2)."""
    named = [part.strip().removeprefix(b"W/") for part in given.split(b",")]
    return tag in named or named == [b"*"]


def _check_wanted(service: Service) -> None:
    if not service.config.playground:
        raise Problem(
            404,
            "not_found",
            "the server was started without its playground; GET /openapi.json lists what there is",
        )


async def stats(service: Service, exchange: Exchange, body: None) -> Answer:
    """Give the figures that the page shows live."""
    _check_wanted(service)
    counted = service.engine.stats().values()
    content: dict[str, Any] = {
        "at_s": time.monotonic(),
        "n_texts": sum(snapshot.n_texts for snapshot in counted),
        "n_tokens": sum(snapshot.n_tokens for snapshot in counted),
        "n_requests": service.room.n_requests,
        "n_waiting_texts": service.room.n_texts,
        "wait_s": service.room.wait_s(),
        "models": {served.name: service.models.state(served) for served in service.models.all()},
    }
    return answer(content, headers=((b"cache-control", b"no-store"),))


def _endpoint(path: str, name: str, summary: str) -> Endpoint:
    return Endpoint(
        "GET",
        path,
        _sender(name),
        summary,
        TAG,
        media_type=MEDIA_TYPES[name.rpartition(".")[2]].decode().partition(";")[0],
        access="open",
        statuses=(200, 304),
    )


ENDPOINTS = (
    _endpoint("/", PAGE, "A page to try the models with."),
    *(_endpoint(f"/playground/{name}", name, f"The page's {name}.") for name in ASSETS),
    Endpoint(
        "GET",
        "/playground/stats",
        stats,
        "What the page shows live.",
        TAG,
        reply=PlaygroundStats,
        is_probe=True,
    ),
)

"""What operators ask: whether the server lives, whether it is ready, and what it has counted."""

from __future__ import annotations

from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.metrics import MEDIA_TYPE
from embellama.server.models import LOADING_RETRY_S
from embellama.server.problems import Problem
from embellama.server.service import Service

TAG = "Operations"


async def health(service: Service, exchange: Exchange, body: None) -> Answer:
    """Tell that the server lives, and how far its models are."""
    return answer({"status": "ok", "models": _states(service)})


async def ready(service: Service, exchange: Exchange, body: None) -> Answer:
    """Tell whether requests can be answered now.

    503 until the models are loaded that the server loads by itself, where one of them failed, and
    while it ends. A model that is loaded when it is asked for does not count: the request waits.
    """
    states = _states(service)
    status = _status(service, states)
    is_ready = status == "ready"
    headers = () if is_ready else ((b"retry-after", b"%d" % LOADING_RETRY_S),)
    return answer(
        {"status": status, "models": states}, status=200 if is_ready else 503, headers=headers
    )


def _status(service: Service, states: dict[str, str]) -> str:
    if service.is_stopping:
        return "stopping"
    needed = [served for served in service.models.all() if served.name in service.names_at_start]
    if any(states[served.name] == "failed" for served in needed):
        return "failed"
    return "loading" if any(served.is_starting for served in needed) else "ready"


async def metrics(service: Service, exchange: Exchange, body: None) -> Answer:
    """Give all counts."""
    if not service.config.metrics:
        raise Problem(404, "not_found", "the server was started without metrics")
    return Answer(service.metrics.page(), media_type=MEDIA_TYPE)


def _states(service: Service) -> dict[str, str]:
    return {served.name: service.models.state(served) for served in service.models.all()}


ENDPOINTS = (
    Endpoint(
        "GET",
        "/health",
        health,
        "Whether the server lives.",
        TAG,
        access="open",
        is_probe=True,
    ),
    Endpoint(
        "GET",
        "/ready",
        ready,
        "Whether it answers requests now.",
        TAG,
        access="open",
        statuses=(200, 503),
        is_probe=True,
    ),
    Endpoint(
        "GET",
        "/metrics",
        metrics,
        "Counts for Prometheus.",
        TAG,
        media_type="text/plain",
        is_probe=True,
    ),
)

"""Fixtures: servers that several tests share, and so leave as they are."""

from __future__ import annotations

import time

import pytest

from embellama.testing import FakeBackend
from tests.integration.server.running import serving

LIMITS = {
    "read_timeout_s": 0.6,
    "idle_timeout_s": 0.8,
    "request_timeout_s": 30,
    "max_connections": 20,
    "max_body_bytes": 1 << 20,
    "max_texts": 50,
    "max_request_tokens": 2000,
}


@pytest.fixture(scope="session")
def server(minilm_path):
    """A server with MiniLM F16 as "minilm", in this process."""
    with serving(models={"minilm": minilm_path}) as running:
        yield running


@pytest.fixture(scope="session")
def _limited(tiny_path):
    with serving(LIMITS, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        yield running


@pytest.fixture
def guarded(_limited):
    """A server with low limits, whose model answers at once; as good after a test as before."""
    yield _limited
    end = time.monotonic() + 5.0
    while (found := _still_there(_limited)) is None:
        assert time.monotonic() < end, "too many connections linger"
        time.sleep(0.05)
    assert found == 200
    room = _limited.service.room
    assert room.n_requests == room.n_texts == room.n_body_bytes == 0
    assert _limited.service.metrics.n_in_flight == 0


def _still_there(running):
    """Return the status of a request; None where other connections take the room for it."""
    try:
        status, _, data = running.request("/v1/embeddings", {"input": "still there"})
    except OSError:
        return None
    return None if b"too_many_connections" in data else status

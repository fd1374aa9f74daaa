"""What calls and requests leave behind for the garbage collector: nothing.

What refers to itself is freed by the collector alone. Rows that a finished call still held would
stay until then, which a server puts off, and collecting stops every thread.
"""

import asyncio
import gc
import http.client
import json
import socket
import struct
import time
from contextlib import suppress
from functools import partial

import pytest

from embellama import EmbeddingCache, EmbeddingEngine
from embellama.errors import EmbeddingTimeoutError, EmbellamaError
from embellama.server.http.connection import _GuardedProtocol
from tests.conftest import QUIET
from tests.integration.server.raw import EMBED
from tests.integration.server.running import serving

N_TIMES = 20
TEXTS = ["hello there", "and again"] * 20


def left_by(work):
    """Return how many objects a call leaves that only the garbage collector frees."""
    work()  # what is made once is no garbage
    gc.collect()
    gc.disable()
    try:
        for _ in range(N_TIMES):
            work()
        time.sleep(0.05)  # the threads that did it let go of it too
        return gc.collect() // N_TIMES
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def engine(minilm_path):
    with EmbeddingEngine() as engine:
        engine.load_model(minilm_path, name="m", config=QUIET)
        yield engine


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as runner:
        yield runner


def failing(work, error=EmbellamaError):
    """Return what does the work, which fails."""

    def fails():
        with suppress(error):
            work()
            raise AssertionError("it did not fail")

    return fails


@pytest.mark.parametrize(
    "verb",
    [
        lambda engine: engine.embed("m", "hello there"),
        lambda engine: engine.embed_batch("m", TEXTS),
        lambda engine: engine.embed_detailed("m", TEXTS),
        lambda engine: engine.embed_tokens("m", TEXTS),
        lambda engine: list(engine.embed_stream("m", TEXTS)),
        lambda engine: engine.tokenize_detailed("m", TEXTS),
    ],
    ids=["embed", "batch", "detailed", "tokens", "stream", "tokenize"],
)
def test_calls_leave_nothing(engine, verb):
    assert left_by(lambda: verb(engine)) == 0


def test_what_refers_to_itself_is_noticed():
    def knot():
        itself = []
        itself.append(itself)

    assert left_by(knot) == 1


@pytest.mark.parametrize("texts", [["a", ""], ["a", 3], ["long " * 2000]])
def test_refused_calls_leave_nothing(engine, texts):
    assert left_by(failing(lambda: engine.embed_batch("m", texts))) == 0


def test_awaited_calls_leave_nothing(engine, runner):
    async def one():
        await engine.aembed("m", "hello there")

    async def many():
        await engine.aembed_batch("m", TEXTS)

    for work in (one, many):
        assert left_by(lambda work=work: runner.run(work())) == 0


def test_cached_calls_leave_nothing(minilm_path):
    with EmbeddingCache.in_memory() as cache, EmbeddingEngine(cache=cache) as engine:
        engine.load_model(minilm_path, name="m", config=QUIET)
        assert left_by(lambda: (cache.clear(), engine.embed_batch("m", TEXTS))) == 0
        assert left_by(lambda: engine.embed_batch("m", TEXTS)) == 0


def test_calls_that_are_not_done_in_time_leave_nothing(engine):
    timeless = failing(lambda: engine.embed("m", "a", timeout_s=0.0), EmbeddingTimeoutError)
    assert left_by(timeless) == 0


def test_calls_that_are_given_up_leave_nothing(engine):
    def impatient():
        def stop(n_done, n_texts):
            raise KeyError("enough")

        with suppress(KeyError):
            engine.embed_batch("m", TEXTS, progress=stop)

    def satisfied():
        vectors = engine.embed_stream("m", TEXTS)
        next(vectors)
        vectors.close()

    for give_up in (impatient, satisfied):
        assert left_by(give_up) == 0


# ── requests ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def asked(minilm_path):
    """Return what sends a request and gives its status, on a connection that stays."""
    with serving({"access_log": True}, models={"m": minilm_path}) as running:
        connection = http.client.HTTPConnection(running.url.removeprefix("http://"))

        def ask(path, body=None, headers=None):
            sent = None if body is None else json.dumps(body)
            json_type = {"Content-Type": "application/json"} | (headers or {})
            connection.request("GET" if body is None else "POST", path, sent, json_type)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        ask.room = running.service.room
        ask.address = (connection.host, connection.port)
        yield ask
        connection.close()


OPENAI = "/v1/embeddings"


@pytest.mark.parametrize(
    ("status", "path", "body"),
    [
        (200, OPENAI, {"input": "hello there"}),
        (200, OPENAI, {"input": TEXTS, "encoding_format": "base64"}),
        (200, "/embed", {"inputs": TEXTS}),
        (200, "/api/embed", {"model": "m", "input": TEXTS}),
        (200, "/tokenize", {"inputs": TEXTS}),
        (200, "/v1/models", None),
        (200, "/metrics", None),
        (400, OPENAI, {"input": ["a", ""]}),
        (400, OPENAI, {"input": 3}),
        (413, "/embed", {"inputs": "long " * 2000}),
        (404, "/api/embed", {"model": "x", "input": "a"}),
        (404, "/nowhere", None),
        (405, OPENAI, None),
        (504, OPENAI, {"input": ["long " * 200] * 64, "embellama": {"timeout_s": 0.001}}),
    ],
)
def test_requests_leave_nothing(asked, status, path, body):
    assert asked(path, body) == status
    assert left_by(lambda: asked(path, body)) == 0


def test_requests_that_are_told_to_come_later_leave_nothing(asked, monkeypatch):
    monkeypatch.setattr(asked.room, "_max_requests", 0)
    assert asked(OPENAI, {"input": "a"}) == 503
    assert left_by(lambda: asked(OPENAI, {"input": "a"})) == 0


def test_requests_to_another_name_leave_nothing(asked):
    ask = partial(asked, "/v1/models", headers={"Host": "evil.example"})
    assert ask() == 403
    assert left_by(ask) == 0


# ── connections ─────────────────────────────────────────────────────────────────────────────

ASKED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"


def connections(sent, *, is_reset=False):
    """Return what opens a connection, sends something, and ends it when it is answered."""

    def connect(address):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(sent)
            if sent:
                connection.recv(10)
            if is_reset:
                at_once = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)

    return connect


@pytest.mark.parametrize(
    "connect",
    [
        connections(b""),
        connections(ASKED + b"\r\n"),
        connections(ASKED + b"\r\n", is_reset=True),
        connections(ASKED + b"Connection: close\r\n\r\n"),
        connections(b"no HTTP\r\n\r\n"),
        connections(ASKED + b"\r\n" + 3 * EMBED),
        connections(ASKED + b"\r\n" + 3 * EMBED, is_reset=True),
    ],
    ids=["opened", "answered", "reset", "closed", "refused", "in line", "in line, reset"],
)
def test_connections_leave_nothing(asked, connect):
    assert left_by(lambda: connect(asked.address)) == 0
    alive = [each for each in gc.get_objects() if isinstance(each, _GuardedProtocol)]
    assert len(alive) <= 1  # the fixture's own

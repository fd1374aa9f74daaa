"""Clients that are slow, or send too much: a clear answer in time, and a server as before."""

import time
from contextlib import suppress

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama.server.http.connection import LINGER_S, MAX_HEADERS, MAX_PIPELINED
from embellama.testing import FakeBackend
from tests.integration.server.raw import EMBED, GET, Raw, post, raw
from tests.integration.server.running import Stuck, serving

SOON_S = 2.5
"""Well after the time limits here, and well before the default ones."""


# ── clients that are slow ───────────────────────────────────────────────────────────────────


def test_a_connection_on_which_nothing_is_sent_is_closed(guarded):
    with raw(guarded) as client:
        assert 0.5 < client.ends() < SOON_S


def test_blank_lines_are_no_reason_to_wait(guarded):
    with raw(guarded) as client:
        took_s = client.drip(b"\r\n" * 100, size=2)
        assert took_s is not None
        assert took_s < SOON_S
    with raw(guarded) as client:
        client.send(GET)
        assert client.answer()[0] == 200
        took_s = client.drip(b"\r\n" * 100, size=2)
        assert took_s is not None
        assert took_s < SOON_S


def test_headers_drop_by_drop_are_refused_in_time(guarded):
    with raw(guarded) as client:
        start = time.monotonic()
        client.drip(b"GET /health HTTP/1.1\r\nx-long: " + b"a" * 200, every_s=0.02)
        assert client.error() == (408, "request_timeout")
        client.ends()
        assert time.monotonic() - start < LINGER_S + 5.0


def test_a_body_drop_by_drop_is_refused_in_time(guarded):
    with raw(guarded) as client:
        client.drip(EMBED[:-5], size=20, every_s=0.0)
        assert client.error() == (408, "request_timeout")
        client.ends()


def test_chunks_drop_by_drop_are_refused_in_time(guarded):
    head = post(b"", "transfer-encoding: chunked", length=False)
    with raw(guarded) as client:
        client.send(head)
        client.drip(b"1\r\n \r\n" * 30, size=6)
        assert client.error() == (408, "request_timeout")


def test_a_second_request_is_not_waited_for_longer_than_a_first(guarded):
    with raw(guarded) as client:
        client.send(EMBED)
        assert client.answer()[0] == 200
        client.send(EMBED[:30])
        assert client.error() == (408, "request_timeout")


def large_rows(batch):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch.n_sequences, 2000), dtype=np.float32)


@pytest.fixture(scope="module")
def large(tiny_path):
    """A server with short time limits whose answers are megabytes, more than the kernel holds."""
    backend = FakeBackend(large_rows, n_embd=2000)
    config = {"read_timeout_s": 0.6, "idle_timeout_s": 0.8}
    with serving(config, models={"tiny": tiny_path}, backend=backend) as running:
        yield running


LARGE = {"input": [f"{'a' * (1 + n % 40)} {'b' * (1 + n // 40)}" for n in range(1000)]}


@pytest.mark.parametrize("headers", [(), ("connection: close",)])
def test_a_client_that_reads_nothing_is_ended(large, headers):
    with raw(large, receive_buffer=4096) as client:
        client.send(post(LARGE, *headers) + post(LARGE, *headers))
        time.sleep(3.5)
        n_bytes = 0
        with suppress(ConnectionResetError):
            while data := client.socket.recv(1 << 20):
                n_bytes += len(data)
        assert 0 < n_bytes < 15_000_000  # not the whole of what it asked for
    assert large.json("/v1/embeddings", {"input": "still there"})[0] == 200


def test_a_client_that_reads_slowly_gets_it_all(large):
    with raw(large, receive_buffer=1 << 16) as client:
        client.send(post(LARGE, "connection: close"))
        n_bytes, start = 0, time.monotonic()
        while data := client.socket.recv(100_000):
            n_bytes += len(data)
            time.sleep(0.01)
        assert n_bytes > 15_000_000
        assert time.monotonic() - start > 1.0


def test_a_connection_that_is_no_longer_used_is_closed(guarded):
    with raw(guarded) as client:
        client.send(GET)
        assert client.answer()[0] == 200
        assert 0.5 < client.ends() < SOON_S


def test_far_too_many_connections_are_not_even_answered(guarded):
    clients = []
    try:
        with suppress(ConnectionResetError):
            clients.extend(Raw(guarded.url) for _ in range(100))
        time.sleep(0.2)
        answers = [answer_of(client) for client in clients]
        assert answers.count(b"HTTP/1.1 503") >= 5
        assert answers.count(b"") >= 30
    finally:
        for client in clients:
            client.socket.close()


def answer_of(client):
    client.socket.settimeout(0.0)
    try:
        return client.socket.recv(12)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        return b""


def test_idle_clients_do_not_keep_others_out(guarded):
    clients = [raw(guarded) for _ in range(30)]
    try:
        opened = [client.__enter__() for client in clients]
        answers = []
        for client in opened:
            client.send(GET)
        for client in opened:
            try:
                answers.append(client.answer()[0])
            except (ConnectionResetError, AssertionError):
                answers.append(None)
        assert answers.count(200) >= 15
        assert answers.count(503) >= 8
    finally:
        for client in clients:
            client.__exit__(None, None, None)


# ── clients that send too much ──────────────────────────────────────────────────────────────


def test_an_announced_body_that_is_too_large_is_refused_unread(guarded):
    with raw(guarded) as client:
        client.send(post(b"", "content-length: 104857600", length=False))
        assert client.error() == (413, "body_too_large")


def test_a_body_of_100_megabytes_is_refused_and_not_kept(guarded):
    part = b"a" * (1 << 20)
    for header in ("content-length: 104857600", "transfer-encoding: chunked"):
        with raw(guarded) as client:
            client.send(post(b"", header, length=False))
            for _ in range(100):
                framed = b"%x\r\n%s\r\n" % (len(part), part) if "chunked" in header else part
                if not client.send(framed):
                    break
            assert client.error() == (413, "body_too_large")


def test_what_is_not_wanted_is_not_asked_for(guarded):
    with raw(guarded) as client:
        head = post(b"", "content-length: 104857600", "expect: 100-continue", length=False)
        client.send(head)
        assert client.error() == (413, "body_too_large")
    with raw(guarded) as client:
        whole = post({"input": "a"}, "expect: 100-continue")
        head, body = whole[: whole.index(b"\r\n\r\n") + 4], whole[whole.index(b"\r\n\r\n") + 4 :]
        client.send(head)
        assert client.answer()[0] == 100
        client.send(body)
        assert client.answer()[0] == 200


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET /health HTTP/1.1\r\nx: " + b"a" * (1 << 20), "headers_too_large"),
        (b"GET /" + b"a" * (1 << 20), "headers_too_large"),
        (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * 10_000, "too_many_headers"),
        (b"GET /health HTTP/1.1\r\n" + b"x: y\r\n" * (MAX_HEADERS + 1), "too_many_headers"),
        (b"GET /health HTTP/1.1\r\n" + (b"x: " + b"y" * 900 + b"\r\n") * 80, "headers_too_large"),
    ],
)
def test_floods_of_headers_are_refused(guarded, head, code):
    with raw(guarded) as client:
        client.send(head + b"\r\n\r\n")
        assert client.error() == (431, code)
        client.ends()


def test_too_many_texts_and_tokens_are_refused(guarded):
    status, value = guarded.json("/v1/embeddings", {"input": ["a"] * 51})
    assert (status, value["error"]["code"]) == (400, "too_many_texts")
    status, value = guarded.json("/v1/embeddings", {"input": ["a b c d e f g h i j k " * 20] * 20})
    assert (status, value["error"]["code"]) == (400, "too_many_tokens")


def test_requests_behind_one_another_are_answered_in_order(guarded):
    with raw(guarded) as client:
        client.send(GET + EMBED + GET + b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n" + EMBED)
        assert [client.answer()[0] for _ in range(5)] == [200, 200, 200, 404, 200]


def test_more_of_them_than_anybody_needs_end_the_connection(guarded):
    with raw(guarded) as client:
        client.send(EMBED + GET * 5000)
        statuses = []
        try:
            while len(statuses) < 5001:
                statuses.append(client.answer()[0])
        except (AssertionError, ConnectionResetError):
            pass
        assert set(statuses) == {200}
        assert len(statuses) <= MAX_PIPELINED + 1


def test_a_bad_request_does_not_take_the_answer_from_the_one_before(guarded):
    with raw(guarded) as client:
        client.send(EMBED + b"this is no HTTP\r\n\r\n")
        assert client.answer()[0] == 200
        client.ends()
    with raw(guarded) as client:
        client.send(EMBED + EMBED[:-5])  # and one that is never there
        assert client.answer()[0] == 200
        assert client.error() == (408, "request_timeout")


def test_a_request_behind_one_that_takes_long_has_its_time_limit_too(tiny_path):
    stuck, config = Stuck(), {"read_timeout_s": 0.4, "access_log": True}
    with (
        serving(config, models={"tiny": tiny_path}, backend=stuck.backend) as running,
        capture_logs() as events,
        raw(running) as client,
    ):
        client.send(EMBED + EMBED[:-5])
        time.sleep(1.0)
        assert running.service.room.n_requests == 1  # which is not given up for it
        client.send(EMBED)
        stuck.may_go_on.set()
        assert client.answer()[0] == 200
        client.ends()
    refused = [event for event in events if event["event"] == "embellama.connection.refused"]
    assert refused == [
        {
            "event": "embellama.connection.refused",
            "log_level": "info",
            "status": 408,
            "code": "request_timeout",
            "client": "127.0.0.1",
        }
    ]


def test_a_body_that_was_refused_already_is_not_waited_for(guarded):
    with raw(guarded) as client:
        client.send(post(b"", "content-length: 104857600", length=False))
        assert client.error() == (413, "body_too_large")
        took_s = client.drip(b"a" * 1000, size=10)
        assert took_s is not None
        assert took_s < SOON_S

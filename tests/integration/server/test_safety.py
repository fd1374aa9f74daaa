"""What hostile clients send: a clear answer within the limits, and a server as good as before."""

import json
import time

import pytest

from embellama.server.app import ENDPOINTS
from embellama.server.gate import parsed
from embellama.server.http import LINGER_S, MAX_HEADERS, MAX_PIPELINED
from embellama.server.problems import Problem
from embellama.testing import FakeBackend
from tests.integration.server.raw import EMBED, GET, post, raw
from tests.integration.server.running import serving

SOON_S = 2.5
"""Well after the time limits here, and well before the default ones."""

LIMITS = {
    "read_timeout_s": 0.6,
    "idle_timeout_s": 0.8,
    "request_timeout_s": 30,
    "max_connections": 20,
    "max_body_bytes": 1 << 20,
    "max_texts": 50,
    "max_request_tokens": 2000,
}


@pytest.fixture(scope="module")
def guarded(tiny_path):
    """A server with short time limits, whose model answers at once."""
    with serving(LIMITS, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        yield running


@pytest.fixture(autouse=True)
def _is_as_good_as_before(request):
    yield
    if "guarded" in request.fixturenames:
        running = request.getfixturevalue("guarded")
        assert running.json("/v1/embeddings", {"input": "still there"})[0] == 200
        assert running.service.room.n_requests == 0
        assert running.service.room.n_body_bytes == 0
        assert metric(running, "embellama_requests_in_flight") == 0.0


def metric(running, name):
    page = running.request("/metrics")[2].decode()
    return float(next(line for line in page.splitlines() if line.startswith(f"{name} ")).split()[1])


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


def test_a_client_that_reads_nothing_is_ended(guarded, monkeypatch):
    # each answer is some 100 kB: more than the buffers of both ends hold
    texts = {"input": ["w"] * 50, "embellama": {"details": True}}
    for headers in ((), ("connection: close",)):
        with raw(guarded, receive_buffer=4096) as client:
            for _ in range(1 if headers else 200):
                client.socket.settimeout(0.2)
                try:
                    client.socket.sendall(post(texts, *headers))
                except TimeoutError:
                    break
            end = time.monotonic() + 15.0
            while metric(guarded, "embellama_requests_in_flight") > 0.0:
                assert time.monotonic() < end
                time.sleep(0.05)


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
        client.send(GET + EMBED + GET + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n" + EMBED)
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


# ── clients that send what is no HTTP ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"FOO / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n".encode(),
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nx : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1e3\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFF\r\n",
        # smuggling: two opinions about where the request ends
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"POST / HTTP/1.1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(guarded, request_bytes):
    with raw(guarded) as client:
        client.send(request_bytes)
        assert client.error() == (400, "bad_request")
        client.ends()


def test_old_and_odd_http_is_answered(guarded):
    with raw(guarded) as client:
        client.send(b"GET /health HTTP/1.0\r\n\r\n")
        status, headers, _ = client.answer()
        assert (status, headers["connection"]) == (200, "close")
        client.ends()
    with raw(guarded) as client:
        client.send(b"HEAD /health HTTP/1.1\r\nhost: x\r\n\r\n" + GET)
        status, headers, _ = client.answer(method="HEAD")
        assert status == 200
        assert int(headers["content-length"]) > 0
        assert client.answer()[0] == 200
    with raw(guarded) as client:
        body = b'{"input": "a"}'
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nx-api-key: no\r\n\r\n"
        client.send(post(b"", "transfer-encoding: chunked", length=False) + chunks)
        assert client.answer()[0] == 200
    with raw(guarded) as client:  # as Java's client asks by itself
        client.send(post({"input": "a"}, "connection: Upgrade, HTTP2-Settings", "upgrade: h2c"))
        assert client.answer()[0] == 200
        client.send(GET)
        assert client.answer()[0] == 200
    with raw(guarded) as client:
        client.send(GET[:-2] + b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n" + GET)
        assert [client.answer()[0] for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_other_methods_are_refused_with_those_there_are(guarded, method):
    with raw(guarded) as client:
        client.send(f"{method} /v1/embeddings HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        status, headers, body = client.answer()
        assert (status, headers["allow"]) == (405, "POST")
        assert json.loads(body)["error"]["code"] == "method_not_allowed"


def test_who_hangs_up_gets_nothing_and_keeps_nothing(guarded):
    with raw(guarded) as client:
        client.send(EMBED[:-3])
        client.socket.shutdown(1)
        assert client.ends() < SOON_S


# ── bodies ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"input": "\xc3\x28"}', 400, "invalid_json"),
        ('{"input": "é"}'.encode("utf-16"), 400, "invalid_json"),
        (b'\xef\xbb\xbf{"input": "a"}', 400, "invalid_json"),
        (b'{"input": "a"} {"input": "b"}', 400, "invalid_json"),
        (b'{"input": "a",}', 400, "invalid_json"),
        (b'{"input": "\\ud800"}', 400, "invalid_json"),
        (b'{"input": "\\udc00\\ud800"}', 400, "invalid_json"),
        (b'{"input": "a", "x": ' + b"[" * 100_000, 400, "invalid_json"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        (b'{"a":' * 100_000, 400, "invalid_json"),
        (b'{"input": "a", "dimensions": 1' + b"0" * 400 + b"}", 400, "invalid_request"),
        (b'{"input": "a", "dimensions": 1' + b"0" * 4290 + b"}", 400, "invalid_request"),
        (b'{"input": "a", "dimensions": ' + b"9" * 500_000 + b"}", 400, "invalid_json"),
        (b'{"input": "a", "dimensions": 1e400}', 400, "invalid_request"),
        (b'{"input": "a", "dimensions": NaN}', 400, "invalid_request"),
        (b'{"input": [NaN]}', 400, "invalid_request"),
        (b'{"input": "a", "embellama": {"timeout_s": Infinity}}', 400, "invalid_request"),
        (b'{"input": "a", "dimensions": true}', 400, "invalid_request"),
        (b'{"input": "a", "model": "' + b"m" * 1000 + b'"}', 400, "invalid_request"),
        (b'{"input": "a", "model": "../../etc/passwd"}', 404, "model_not_found"),
        (b'{"input": "a", "model": "\\u0000"}', 404, "model_not_found"),
        (b'{"input": ""}', 400, "empty_input"),
        (b'{"input": "a", "embellama": {' + b'"x":0,' * 2000 + b'"y":0}}', 400, "invalid_request"),
        (b"null", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'"a"', 400, "invalid_request"),
        (b"[" + b"0," * 10_000 + b"0]", 413, "too_many_parts"),
        (b'{"input": "a", "input": 1}', 400, "invalid_request"),
        (b'{"input": 1, "input": "a", "input": "b"}', 200, None),  # the last one counts
        (b'{"input": "a", "unknown": NaN}', 200, None),
        (b'{"input": "a\\u0000b"}', 200, None),
        ('{"input": "\U0001f9ea\u202e\ufeff"}'.encode(), 200, None),
    ],
)
def test_odd_bodies_are_answered_clearly(guarded, body, status, code):
    found, value = guarded.json("/v1/embeddings", body)
    assert found == status, value
    if code is None:
        assert len(value["data"]) == 1
    else:
        assert value["error"]["code"] == code
        assert len(value["error"]["message"]) < 500


@pytest.mark.parametrize(
    "texts", [["a\x00b"], ["\x00"], ["\ud83e\uddea", "\u202e"], ["\uffff" * 9]]
)
def test_the_real_model_answers_odd_texts(server, texts):
    status, value = server.json("/v1/embeddings", {"input": texts})
    assert status in (200, 400)
    if status == 400:
        assert value["error"]["code"] == "empty_input"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 5000]
)
def test_another_content_type_is_refused(guarded, kind):
    status, value = guarded.json(
        "/v1/embeddings", b'{"input": "a"}', headers={"Content-Type": kind}
    )
    assert (status, value["error"]["code"]) == (415, "unsupported_media_type")
    assert len(value["error"]["message"]) < 300


MANY = 2 * 300_000
"""Parts of a body that the default limits let through."""


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if e.body is not None], ids=lambda e: e.path
)
def test_no_body_that_is_let_through_holds_everybody_up_for_long(endpoint):
    for field in endpoint.body.model_fields:
        for part in ("0.5", "[]", '"a"', '{"a":0}', "[0]"):
            n_parts = MANY // (1 + part.count("[") + part.count("{"))
            listed = ",".join([part] * n_parts)
            keyed = ",".join(f'"{number}":{part}' for number in range(n_parts))
            for body in (f'{{"{field}":[{listed}]}}', f'{{"{field}":{{{keyed}}}}}'):
                start = time.thread_time()
                try:
                    parsed(endpoint, body.encode())
                except Problem as problem:
                    assert len(problem.message) < 1000
                assert time.thread_time() - start < 2.5, (field, part)

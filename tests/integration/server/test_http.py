"""What is no HTTP, or odd HTTP: a clear answer, and one opinion about where a request ends."""

import json

import pytest

from tests.integration.server.raw import EMBED, GET, post, raw


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
        client.send(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\n\r\n" + GET)
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
        client.send(f"{method} /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
        status, headers, body = client.answer()
        assert (status, headers["allow"]) == (405, "POST")
        assert json.loads(body)["error"]["code"] == "method_not_allowed"


def test_who_hangs_up_gets_nothing_and_keeps_nothing(guarded):
    with raw(guarded) as client:
        client.send(EMBED[:-3])
        client.socket.shutdown(1)
        assert client.ends() < 2.5

"""A client that sends what it is told, byte by byte, and reads what HTTP/1.1 servers answer."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from contextlib import contextmanager

WAIT_S = 20.0


class Raw:
    """A connection."""

    def __init__(self, url, *, receive_buffer=None):
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT_S)
        self.socket.connect((parts.hostname, parts.port))
        self._left = b""

    def send(self, data):
        """Send all of it; False if the server does not want it any more."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def drip(self, data, *, size=1, every_s=0.05):
        """Send a little at a time; the seconds until the server had enough, or None."""
        start = time.monotonic()
        for at in range(0, len(data), size):
            if not self.send(data[at : at + size]):
                return time.monotonic() - start
            time.sleep(every_s)
        return None

    def answer(self, *, method="POST"):
        """Read one answer: (status, headers, bytes)."""
        head = self._until(b"\r\n\r\n")
        line, *rest = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (field.partition(":") for field in rest if field)
        }
        status = int(line.split()[1])
        if status < 200 or method == "HEAD":
            return status, headers, b""
        n_bytes = int(headers["content-length"])
        while len(self._left) < n_bytes:
            self._more()
        body, self._left = self._left[:n_bytes], self._left[n_bytes:]
        return status, headers, body

    def error(self):
        """Read one answer that is an error: (status, its code)."""
        status, headers, body = self.answer()
        assert headers["content-type"] == "application/json"
        return status, json.loads(body)["error"]["code"]

    def ends(self):
        """Seconds until the server ends the connection; nothing else may come."""
        start = time.monotonic()
        assert self._left == b""
        try:
            rest = self.socket.recv(1)
        except ConnectionResetError:
            rest = b""
        assert rest == b"", rest
        return time.monotonic() - start

    def _until(self, mark):
        while mark not in self._left:
            self._more()
        head, _, self._left = self._left.partition(mark)
        return head + b"\r\n"

    def _more(self):
        data = self.socket.recv(1 << 16)
        assert data, f"the server closed after {self._left!r}"
        self._left += data


@contextmanager
def raw(running, **options):
    """Connect to a running server."""
    client = Raw(running.url, **options)
    try:
        yield client
    finally:
        client.socket.close()


def post(body, *headers, path="/v1/embeddings", length=True):
    """Write a request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", *headers]
    if length:
        lines.append(f"content-length: {len(data)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
EMBED = post({"input": "hello there"})

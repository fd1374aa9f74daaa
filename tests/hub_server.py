"""A local stand-in of the Hugging Face hub and of a package index, with faults on demand.

Real HTTP on 127.0.0.1, served by the standard library. What is known of the hub's interface:
``/api/models/<repository>/revision/<revision>`` lists files with size and digest, and
``/<repository>/resolve/<revision>/<file>`` serves one, with its commit and digest in headers.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

LARGE_SUFFIXES = (".gguf", ".safetensors")


@dataclass
class Fault:
    """What goes wrong with requests whose path holds ``part``, the next ``times`` times.

    Attributes:
        part: Substring of the path.
        method: GET, HEAD, or any.
        status: Answer with this status.
        drop_after: Send so many bytes of the body and cut the connection.
        body: Send this instead of the file, with headers as for the file.
        delay_s: Wait before the answer.
        times: How often; endless if negative.
    """

    part: str
    method: str = ""
    status: int | None = None
    drop_after: int | None = None
    body: bytes | None = None
    delay_s: float = 0.0
    times: int = -1


@dataclass
class HubServer:
    """Repositories and wheels to serve, faults to play, and the requests that came."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    wheels: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __enter__(self) -> Self:
        owner = self

        class Handler(_Handler):
            hub = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def commit_of(self, repository: str) -> str:
        """Forty digits that change with any file."""
        files = sorted(self.repositories[repository].items())
        return hashlib.sha1(repr(files).encode()).hexdigest()

    def count(self, method: str, part: str) -> int:
        """How many requests of a method had a path with a part."""
        return sum(1 for m, path, _ in self.requests if m == method and part in path)

    def take_fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times != 0 and fault.part in path and fault.method in ("", method):
                fault.times -= 1
                return fault
        return None


def digest_of(name: str, data: bytes) -> str:
    """The hub's digest: SHA-256 of a large file, git's SHA-1 of another."""
    if name.endswith(LARGE_SUFFIXES):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""

    def do_HEAD(self) -> None:
        self._serve("HEAD")

    def do_GET(self) -> None:
        self._serve("GET")

    def _serve(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((method, path, self.headers.get("Range")))
        fault = self.hub.take_fault(method, path)
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.status is not None:
                return self._send(fault.status, b'{"error": "scripted"}')
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            return self._list("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        if parts[0] in ("simple", "files"):
            return self._index(parts, fault)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), fault)
        return self._send(404, b"{}")

    def _known(self, repository: str, revision: str) -> bool:
        if repository not in self.hub.repositories:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v1", self.hub.commit_of(repository)):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def _list(self, repository: str, revision: str) -> None:
        if not self._known(repository, revision):
            return
        siblings = []
        for name, data in self.hub.repositories[repository].items():
            digest = digest_of(name, data)
            row: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if name.endswith(LARGE_SUFFIXES):
                row["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            else:
                row["blobId"] = digest
            siblings.append(row)
        answer = {"id": repository, "sha": self.hub.commit_of(repository), "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, repository: str, revision: str, name: str, fault: Fault | None) -> None:
        if not self._known(repository, revision):
            return
        data = self.hub.repositories[repository].get(name)
        if data is None:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {
            "X-Repo-Commit": self.hub.commit_of(repository),
            "ETag": f'"{digest_of(name, data)}"',
            "X-Linked-Size": str(len(data)),
        }
        self._send_file(data, headers, fault)

    def _index(self, parts: list[str], fault: Fault | None) -> None:
        if parts[0] == "files":
            project, filename = parts[1], parts[2]
            self._send_file(self.hub.wheels[project][filename], {}, fault)
            return
        files = self.hub.wheels.get(parts[1], {})
        links = "".join(f'<a href="/files/{parts[1]}/{name}">{name}</a>' for name in files)
        self._send(200 if files else 404, f"<html>{links}</html>".encode(), _HTML)

    def _send_file(self, data: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        status, whole = 200, len(data)
        if fault is not None and fault.body is not None:
            data = fault.body
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            status, data = 206, data[start:]
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        cut = fault.drop_after if fault is not None else None
        self._send(status, data, headers, cut=cut)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = True


_HTML = {"Content-Type": "text/html"}

"""A real server on a real port, in a thread of this process or in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

from embellama import EmbeddingEngine, EngineConfig
from embellama.server.app import make_app, make_service
from embellama.server.http.listening import make_server
from embellama.server.settings import ServerConfig
from embellama.testing import FakeBackend, length_rows
from tests.conftest import QUIET

READY_S = 60.0


class Stuck:
    """A backend whose micro-batches take as long as a test wants."""

    def __init__(self):
        self.is_computing = threading.Event()
        self.may_go_on = threading.Event()
        self.backend = FakeBackend(self._compute)

    def _compute(self, batch):
        self.is_computing.set()
        assert self.may_go_on.wait(READY_S)
        return length_rows(batch)


class Running:
    """A server that runs in a thread; ``service`` are its parts."""

    def __init__(self, service, url):
        self.service = service
        self.url = url

    def request(self, path, body=None, *, method=None, headers=None, timeout_s=60.0):
        """Return (status, headers, bytes) of one request; a dict is sent as JSON."""
        given = {"Content-Type": "application/json"} if body is not None else {}
        data = json.dumps(body).encode() if isinstance(body, dict | list) else body
        request = urllib.request.Request(
            self.url + path, data=data, headers=given | (headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.headers, exc.read()

    def json(self, path, body=None, **options):
        """Return (status, value) of one request."""
        status, _, data = self.request(path, body, **options)
        return status, json.loads(data)


@contextmanager
def serving(config=None, *, models=None, backend=None, cache=None, wait=True, engine_config=None):
    """Run a server on a free port with models by name, e.g. ``{"minilm": path}``."""
    settings = {"port": 0, "access_log": False} | (config or {})
    named = tuple(f"{name}={path}" for name, path in (models or {}).items())
    config = ServerConfig(models=named, **settings)
    configured = engine_config or EngineConfig()
    with EmbeddingEngine(configured, backend=backend, cache=cache) as engine:
        quiet = {"n_threads": QUIET.n_threads, "n_contexts": QUIET.n_contexts}
        service = make_service(config, engine, configured, model_settings=quiet, cache=cache)
        addresses, started = [], threading.Event()

        def tell(found):
            addresses.extend(found)
            started.set()

        def stopping():
            service.is_stopping = True

        server = make_server(
            make_app(service),
            config,
            on_started=tell,
            on_stopping=stopping,
            unsent=service.room.unsent,
            on_refused=service.metrics.refused,
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            assert started.wait(READY_S), "the server does not listen"
            running = Running(service, addresses[0])
            if wait:
                wait_until_ready(running)
            yield running
        finally:
            server.should_exit = True
            thread.join(READY_S)
            assert not thread.is_alive(), "the server does not end"


def wait_until_ready(running):
    end = time.monotonic() + READY_S
    while True:
        status, value = running.json("/ready")
        if status == 200:
            return
        assert time.monotonic() < end, value
        time.sleep(0.02)


@contextmanager
def server_process(*arguments, env=None, ready=True):
    """Run ``embellama serve`` in a process of its own; gives (process, url, lines of its log)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "embellama", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )
    lines, url = [], None
    try:
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "embellama.server.started":
                url = lines[-1]["addresses"][0]
                break
        assert url is not None, lines
        reader = threading.Thread(
            target=lambda: lines.extend(map(json.loads, process.stderr)), daemon=True
        )
        reader.start()
        if ready:
            wait_until_ready(Running(None, url))
        yield process, url, lines
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(READY_S)
        reader.join(READY_S)
        process.stderr.close()


def run(coroutine):
    """Run a coroutine of a test."""
    return asyncio.run(coroutine)

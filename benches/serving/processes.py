"""The servers that are measured, each a process of its own on a free port."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benches.peers.peer import normalized
from embellama.types import FloatArray

MODEL = "m"
"""What the model is called in requests."""

EMBEDDINGS = "/v1/embeddings"

READY_S = 120.0
END_S = 60.0
IDLE_SHARE = 0.05
"""Of a core: a server that uses less has nothing left to do."""

LLAMA_OPTIONS = ("--embeddings", "-np", "32", "-b", "512", "-ub", "512", "-fa", "on")


class ServerError(Exception):
    """A server does not do what it was started for; the message says why."""


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        name: For tables.
        port: Where it listens, on the loopback interface.
        process: Its process.
        log: What it says.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> bytes:
        """Return what is at a path."""
        with urllib.request.urlopen(self.url + path, timeout=READY_S) as answer:
            data: bytes = answer.read()
            return data

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Send JSON, and return the JSON that comes back."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            return json.load(answer)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of its log that are JSON objects."""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("{"):
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError:
                        continue  # cut off, or another's


def embellama_server(
    model: Path, *, n_threads: int, scratch: Path, options: Sequence[str] = ()
) -> Any:
    """Run ``embellama serve`` while a block runs; gives a `Server`."""
    command = [sys.executable, "-m", "embellama", "--threads", str(n_threads), "serve"]
    arguments = [f"{MODEL}={model}", "--host", "127.0.0.1", *options, "--port"]
    return _running("embellama", [*command, *arguments], "/ready", scratch)


def llama_server(program: str, model: Path, *, n_threads: int, scratch: Path) -> Any:
    """Run ``llama-server`` while a block runs; gives a `Server`."""
    threads = ["--threads", str(n_threads), "--threads-batch", str(n_threads)]
    arguments = ["--model", str(model), *LLAMA_OPTIONS, *threads, "--host", "127.0.0.1", "--port"]
    return _running("llama-server", [program, *arguments], "/health", scratch)


def found_llama_server(given: str | None) -> str:
    """Return the program.

    Raises:
        ServerError: There is none.
    """
    program = shutil.which(given or "llama-server")
    if program is None:
        raise ServerError(
            f"there is no program {given or 'llama-server'!r}; build llama.cpp's, and say where "
            "with --llama-server PATH"
        )
    return program


@contextmanager
def _running(name: str, command: list[str], ready: str, scratch: Path) -> Iterator[Server]:
    port = _free_port()
    log = scratch / f"{name}-{port}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    server = Server(name, port, process, log)
    try:
        _wait_until_ready(server, ready)
        yield server
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_ready(server: Server, path: str) -> None:
    give_up = time.monotonic() + READY_S
    while server.process.poll() is None and time.monotonic() < give_up:
        try:
            server.get(path)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    said = server.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise ServerError(
        f"{server.name} is not ready (exit status {server.process.poll()}); it said: "
        f"{(said or ['nothing'])[-1]}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until_idle(*servers: Server) -> None:
    """Wait until servers compute nothing any more, also nothing that nobody waits for.

    Raises:
        ServerError: One goes on and on.
    """
    give_up = time.monotonic() + END_S
    processes = [psutil.Process(server.process.pid) for server in servers]
    every_s = 0.2
    while time.monotonic() < give_up:
        before = [cpu_s(process) for process in processes]
        time.sleep(every_s)
        spent = [cpu_s(process) - was for process, was in zip(processes, before, strict=True)]
        if max(spent) < IDLE_SHARE * every_s:
            return
    names = ", ".join(server.name for server in servers)
    raise ServerError(f"{names}: still busy {END_S:.0f} s after the last request")


def cpu_s(process: psutil.Process) -> float:
    """Return the CPU seconds that all threads of a process took so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def vectors(server: Server, texts: Sequence[str]) -> FloatArray:
    """Return the vectors a server gives, float32 (n_texts, n_embd), each of length 1."""
    value = server.post(EMBEDDINGS, {"input": list(texts), "model": MODEL})
    rows = sorted(value["data"], key=lambda row: row["index"])
    return normalized(np.array([row["embedding"] for row in rows], dtype=np.float32))


def least_cosine(one: FloatArray, other: FloatArray) -> float:
    """Return the lowest cosine of two servers' vectors of one text."""
    return float((one * other).sum(axis=1).min())

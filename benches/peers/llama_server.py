"""llama.cpp's own server over HTTP, as a client on the same machine sees it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.peers.bindings import N_BATCH, N_SLOTS, decoded
from benches.peers.peer import Peer

TEXTS_A_REQUEST = 64
N_CLIENTS = 2
"""Requests at the same time: the next one waits at the server while it computes."""

START_TIMEOUT_S = 120.0
REQUEST_TIMEOUT_S = 600.0


class LlamaServer(Peer):
    """A `llama-server` that this process starts and ends."""

    how = (
        f"HTTP /v1/embeddings, base64; sorted by length, {N_CLIENTS} requests of "
        f"{TEXTS_A_REQUEST} texts at a time, {N_SLOTS} slots"
    )

    def __init__(self, settings: dict[str, Any]) -> None:
        program = settings.get("llama_server") or shutil.which("llama-server")
        if program is None:
            raise FileNotFoundError("no llama-server on PATH")
        told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
        self.versions = {"llama-server": (told.stdout + told.stderr).strip().splitlines()[0]}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        self._clients = ThreadPoolExecutor(N_CLIENTS)
        # Its stdout is this worker's stderr, a file that is shown when something fails.
        self._server = subprocess.Popen([program, *_arguments(settings, port)])
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        give_up = time.monotonic() + START_TIMEOUT_S
        while self._server.poll() is None and time.monotonic() < give_up:
            try:
                with urllib.request.urlopen(f"{self._address}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise RuntimeError(
            f"llama-server did not answer in {START_TIMEOUT_S:.0f} s "
            f"(exit status {self._server.poll()})"
        )

    def embed(self, texts: Sequence[str]) -> list[str]:
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        parts = [order[at : at + TEXTS_A_REQUEST] for at in range(0, len(order), TEXTS_A_REQUEST)]
        answers = self._clients.map(self._ask, [[texts[at] for at in part] for part in parts])
        rows = [""] * len(texts)
        for part, answer in zip(parts, answers, strict=True):
            for at, row in zip(part, answer, strict=True):
                rows[at] = row
        return rows

    def _ask(self, texts: list[str]) -> list[str]:
        body = json.dumps({"input": texts, "model": "m", "encoding_format": "base64"}).encode()
        request = urllib.request.Request(
            f"{self._address}/v1/embeddings", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            data = json.load(response)["data"]
        return [row["embedding"] for row in sorted(data, key=lambda row: row["index"])]

    def rows(self, native: Any) -> NDArray[np.float32]:
        return decoded(native)

    def close(self) -> None:
        self._clients.shutdown(cancel_futures=True)
        self._server.terminate()
        try:
            self._server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()


def _arguments(settings: dict[str, Any], port: int) -> list[str]:
    n_batch = max(N_BATCH, settings["n_ctx"])
    options = {
        "--model": settings["gguf"],
        "--host": "127.0.0.1",
        "--port": port,
        "--threads": settings["n_threads"],
        "--threads-batch": settings["n_threads"],
        "--parallel": N_SLOTS,
        "--ctx-size": N_SLOTS * n_batch,
        "--batch-size": n_batch,
        "--ubatch-size": n_batch,
    }
    return ["--embedding", *(str(word) for option in options.items() for word in option)]

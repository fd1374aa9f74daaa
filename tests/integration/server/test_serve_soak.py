"""A server left running under all kinds of clients: it answers rightly, and keeps its size."""

import random
import socket
import threading
import time
from collections import Counter

import numpy as np
import psutil
import pytest

from tests.conftest import SOAK
from tests.integration.server.raw import EMBED, post, raw
from tests.integration.server.running import Running, server_process

SECONDS = 900.0 if SOAK else 10.0
N_CLIENTS = 6
MAX_GROWTH_MB = 16.0
"""From the first third of the time to the end: less than 20 KB a second of the long form."""

EMBEDDINGS = "/v1/embeddings"


class Clients:
    """Threads that ask whatever comes to mind, and note what they get."""

    def __init__(self, url):
        self.running = Running(None, url)
        self.seen = Counter()
        self.wrong = []
        self.is_over = threading.Event()
        _, value = self.running.json(EMBEDDINGS, {"input": "always the same"})
        self.expected = np.array(value["data"][0]["embedding"], dtype=np.float32)

    def run(self, number):
        chance = random.Random(number)
        ways = [self.one, self.many, self.bad, self.odd, self.watcher, self.hasty, self.rude]
        while not self.is_over.is_set():
            way = chance.choice(ways)
            try:
                way(chance)
            except Exception as exc:  # noqa: BLE001 - told at the end, from any thread
                self.wrong.append((way.__name__, repr(exc)))
                return
            self.seen[way.__name__] += 1

    def one(self, chance):
        status, value = self.running.json(EMBEDDINGS, {"input": "always the same"})
        assert status == 200, value
        found = np.array(value["data"][0]["embedding"], dtype=np.float32)
        assert float(found @ self.expected) > 1 - 1e-5

    def many(self, chance):
        texts = [f"text {chance.random()} " * chance.randint(1, 8) for _ in range(32)]
        path, field = chance.choice([(EMBEDDINGS, "input"), ("/embed", "inputs")])
        status, value = self.running.json(path, {field: texts})
        assert status in (200, 429, 503), value

    def bad(self, chance):
        body = chance.choice([{"input": [""]}, {"input": 3}, b"\xff", {"input": "long " * 900}])
        status, value = self.running.json(EMBEDDINGS, body)
        assert status == 400, value

    def odd(self, chance):
        path, status = chance.choice([("/nowhere", 404), (EMBEDDINGS, 405), ("/v1/models/x", 404)])
        assert self.running.request(path)[0] == status

    def watcher(self, chance):
        path = chance.choice(["/metrics", "/health", "/ready", "/v1/models", "/", "/info"])
        assert self.running.request(path)[0] == 200

    def hasty(self, chance):
        """Leave before the answer is there."""
        with raw(self.running) as client:
            client.send(post({"input": ["hello there"] * chance.randint(1, 64)}))
            time.sleep(chance.choice([0.0, 0.005, 0.02]))

    def rude(self, chance):
        """Break off anywhere, without a word."""
        with raw(self.running) as client:
            client.send(EMBED[: chance.randrange(len(EMBED))])
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
def test_a_server_that_is_left_running(minilm_path, record_property):
    with server_process(f"m={minilm_path}", "--no-access-log") as (process, url, lines):
        server, clients = psutil.Process(process.pid), Clients(url)
        threads = [threading.Thread(target=clients.run, args=(n,)) for n in range(N_CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            clients.is_over.wait(SECONDS / 3)
            before = server.memory_info().rss
            clients.is_over.wait(SECONDS * 2 / 3)
        finally:
            clients.is_over.set()
            for thread in threads:
                thread.join(60)
        grown_mb = (server.memory_info().rss - before) / 2**20
        record_property("visits", sum(clients.seen.values()))
        record_property("grown_mb", grown_mb)
        assert clients.wrong == []
        assert clients.seen.keys() == {
            "one", "many", "bad", "odd", "watcher", "hasty", "rude"
        }  # fmt: skip
        assert grown_mb < MAX_GROWTH_MB
        assert server.num_fds() < 64
        assert not [line for line in lines if line["event"] == "embellama.request.failed"]
        _, _, told = clients.running.request("/metrics")
        assert b"\nembellama_requests_in_flight 0.0\n" in told
        assert b'\nembellama_queue_requests{model="m"} 0.0\n' in told
    assert process.returncode == 0

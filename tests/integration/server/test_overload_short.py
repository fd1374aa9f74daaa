"""More than the server can do: who was let in is answered in time, and the others at once."""

import asyncio
import json
import time
from statistics import median, quantiles

import pytest

from embellama.testing import FakeBackend, length_rows
from tests.integration.server.raw import post
from tests.integration.server.running import Stuck, serving

TEXT_S = 0.004
N_CONTEXTS = 2
SUSTAINED = N_CONTEXTS / TEXT_S / 32
"""Requests of 32 texts in a second."""

MAX_WAIT_S = 1.0
TIMEOUT_S = 6.0


def slowly(batch):
    time.sleep(TEXT_S * batch.n_sequences)
    return length_rows(batch)


async def ask(url, body):
    """Return (status, headers, seconds) of one request on a connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(post(body, "connection: close"))
    answer = await reader.read()
    writer.close()
    head = answer.partition(b"\r\n\r\n")[0].decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:])
    return int(head[0].split()[1]), headers, time.perf_counter() - start


async def open_loop(url, body, *, per_s, for_s):
    """Send at a rate whatever becomes of what was sent before."""
    start, asked = time.perf_counter(), []
    while (elapsed := time.perf_counter() - start) < for_s:
        while len(asked) < elapsed * per_s:
            asked.append(asyncio.ensure_future(ask(url, body)))
        await asyncio.sleep(0.005)
    return await asyncio.gather(*asked)


def test_ten_times_too_much(tiny_path):
    config = {"max_wait_s": MAX_WAIT_S, "request_timeout_s": TIMEOUT_S}
    body, for_s = {"input": ["a" * n + " b" for n in range(1, 33)]}, 5.0  # none twice
    with serving(config, models={"tiny": tiny_path}, backend=FakeBackend(slowly)) as running:
        found = asyncio.run(open_loop(running.url, body, per_s=10 * SUSTAINED, for_s=for_s))
        admitted = [seconds for status, _, seconds in found if status == 200]
        refused = [(headers, seconds) for status, headers, seconds in found if status == 503]
        assert len(admitted) + len(refused) == len(found)
        # it did what it can do, and nobody who was let in waited in vain
        assert len(admitted) > 0.7 * SUSTAINED * for_s
        assert max(admitted) < TIMEOUT_S
        # in the first moments nobody knows how fast it is; then the line is as long as it should be
        later = [
            seconds for status, _, seconds in found[int(10 * SUSTAINED * 1.5) :] if status == 200
        ]
        assert max(later) < 1.8 * MAX_WAIT_S
        assert all(int(headers["retry-after"]) >= 1 for headers, _ in refused)
        times = [seconds for _, seconds in refused]
        assert median(times) < 0.05
        assert quantiles(times, n=20)[-1] < 0.25
        # and as good as before right after
        assert running.service.room.n_requests == running.service.room.n_texts == 0
        after = asyncio.run(open_loop(running.url, body, per_s=SUSTAINED * 0.7, for_s=1.5))
        assert {status for status, _, _ in after} == {200}
        assert max(seconds for _, _, seconds in after) < MAX_WAIT_S


def test_one_long_request_leaves_room_and_is_known_by_how_much_is_left(tiny_path):
    long = {"input": ["a" * (n % 40) + f" {n}" for n in range(1500)]}  # three seconds of work
    short = {"input": ["a" * n + " b" for n in range(1, 33)]}

    async def watch(running):
        asked, waits_s = [asyncio.ensure_future(ask(running.url, long))], []
        while not asked[0].done():
            asked.append(asyncio.ensure_future(ask(running.url, short)))
            asked.append(asyncio.ensure_future(ask(running.url, {"input": "hello"})))
            await asyncio.sleep(0.3)
            waits_s.append(running.service.room.wait_s())
        return await asyncio.gather(*asked), waits_s

    with serving(models={"tiny": tiny_path}, backend=FakeBackend(slowly)) as running:
        found, waits_s = asyncio.run(asyncio.wait_for(watch(running), 60))
    assert {status for status, _, _ in found} == {200}
    took_s = found[0][2]
    assert 0.2 * took_s < max(waits_s) < 3.0 * took_s
    assert median(waits_s[-3:]) < median(waits_s[1:4])


@pytest.mark.parametrize("n_texts", [1, 8])
def test_a_burst_of_small_requests_finds_room(tiny_path, n_texts):
    async def burst(url):
        body = {"input": ["a" * n + " b" for n in range(1, n_texts + 1)]}
        return await asyncio.gather(*(ask(url, body) for _ in range(300 // n_texts)))

    with serving(models={"tiny": tiny_path}, backend=FakeBackend(slowly)) as running:
        for _ in range(2):  # when nothing is known of its pace, and when it is
            assert {status for status, _, _ in asyncio.run(burst(running.url))} == {200}


def test_what_takes_too_long_is_given_up(tiny_path):
    stuck, config = Stuck(), {"request_timeout_s": 0.5}
    with serving(config, models={"tiny": tiny_path}, backend=stuck.backend) as running:
        start = time.monotonic()
        status, value = running.json("/v1/embeddings", {"input": ["a"] * 3})
        assert (status, value["error"]["code"]) == (504, "timeout")
        assert 0.4 < time.monotonic() - start < 5.0
        assert running.service.room.n_requests == 0
        stuck.may_go_on.set()
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200


def test_requests_over_the_limit_are_refused_at_once(tiny_path):
    stuck = Stuck()

    async def flood(running):
        asked = [asyncio.ensure_future(ask(running.url, {"input": "a"})) for _ in range(10)]
        while sum(task.done() for task in asked) < 6:
            await asyncio.sleep(0.01)
        assert running.service.room.n_requests == 4
        stuck.may_go_on.set()
        return await asyncio.gather(*asked)

    config = {"max_requests": 4}
    with serving(config, models={"tiny": tiny_path}, backend=stuck.backend) as running:
        found = asyncio.run(asyncio.wait_for(flood(running), 20))
        assert sorted(status for status, _, _ in found) == [200] * 4 + [503] * 6
        assert running.service.room.n_requests == 0
        status, value = running.json("/v1/embeddings", {"input": "a"})
        assert status == 200, json.dumps(value)


def test_tokens_are_told_while_bulk_requests_wait(tiny_path):
    stuck = Stuck()

    async def flood(running):
        asked = [
            asyncio.ensure_future(ask(running.url, {"input": ["a", "b c", "d"]})) for _ in range(40)
        ]
        while running.service.room.n_requests < len(asked):
            await asyncio.sleep(0.01)
        told = await asyncio.to_thread(running.json, "/tokenize", {"inputs": "a"}, timeout_s=10.0)
        stuck.may_go_on.set()
        return told, await asyncio.gather(*asked)

    with serving(models={"tiny": tiny_path}, backend=stuck.backend) as running:
        told, found = asyncio.run(asyncio.wait_for(flood(running), 20))
        assert told[0] == 200
        assert {status for status, _, _ in found} == {200}

"""The benches of the server: what they count, their clients, and a flood of the smallest kind."""

import asyncio
import json
import shutil
import sys
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benches import overload, serve
from benches.results import Results
from benches.serving.client import CLOSED, LOST, Asked, Client
from benches.serving.limits import Limit, lost_answers, rates_after, recovered_s
from benches.serving.processes import (
    ServerError,
    embellama_server,
    found_llama_server,
    wait_until_idle,
)
from benches.serving.where import by_function, cpu_by_thread, grouped, parts_of
from benches.serving.wrk import read, write_bodies


def told(**changed):
    numbers = {"n_requests": 30, "us": 2_000_000, "n_broken": 0, "n_refused": 0}
    return json.dumps(numbers | {"p50_us": 1500, "p99_us": 9000} | changed)


# ── wrk ──────────────────────────────────────────────────────────────────────────────────────


def test_what_wrk_says_is_read():
    took = read(f"Running 2s test\n{told()}\n", "", "ours")
    assert (took.per_s, took.p50_ms, took.p99_ms, took.n_requests) == (15.0, 1.5, 9.0, 30)


@pytest.mark.parametrize(
    ("stdout", "stderr", "why"),
    [
        (told(n_refused=2), "", "ours: of 30 requests 2 were answered with another status"),
        (told(n_broken=1), "", "and 1 failed"),
        ("", "post.lua: no such file", "wrk failed: post.lua: no such file"),
        ("", "", "it said nothing"),
    ],
)
def test_no_figure_is_made_of_failed_requests(stdout, stderr, why):
    with pytest.raises(ServerError, match=why):
        read(stdout, stderr, "ours")


def test_bodies_hold_each_text_once(tmp_path):
    lines = write_bodies(tmp_path / "32.txt", 32).read_text().splitlines()
    texts = [text for line in lines for text in json.loads(line)["input"]]
    assert {len(json.loads(line)["input"]) for line in lines} == {32}
    assert len(set(texts)) == len(texts) >= 8000
    assert isinstance(
        json.loads(write_bodies(tmp_path / "1.txt", 1).read_text().splitlines()[0])["input"], str
    )


@pytest.mark.parametrize(("missing", "named"), [("wrk", "no wrk"), ("no-such-server", "llama.cpp")])
def test_what_is_missing_is_named(monkeypatch, capsys, missing, named):
    if missing == "wrk":
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "wrk" else name)
    else:
        monkeypatch.setattr("benches.serve.found_wrk", lambda: "wrk")
    monkeypatch.setattr(sys, "argv", ["serve", "--llama-server", "no-such-server"])
    assert serve.main() == 2
    assert named in capsys.readouterr().err
    assert found_llama_server(sys.executable) == sys.executable


@pytest.mark.parametrize(("option", "value"), [("--clients", "0,8"), ("--texts", "many")])
def test_what_cannot_be_measured_is_refused(monkeypatch, capsys, option, value):
    monkeypatch.setattr(sys, "argv", ["serve", option, value])
    with pytest.raises(SystemExit):
        serve.main()
    assert option in capsys.readouterr().err


# ── where the time goes ──────────────────────────────────────────────────────────────────────


def test_the_parts_of_a_request_make_the_whole():
    asked = {"answer_s": 0.010, "total_s": 0.008, "queue_s": 0.001, "tokenize_s": 0.0005}
    parts = parts_of([asked | {"inference_s": 0.005}])
    assert parts["HTTP, JSON and the loop"] == pytest.approx([2.0])
    assert parts["the rest of the engine"] == pytest.approx([1.5])
    whole = parts.pop("answer")
    assert sum(values[0] for values in parts.values()) == pytest.approx(whole[0])


def test_functions_are_ranked_by_samples():
    n_samples, rows = by_function(
        [
            "thread (12): MainThread;run (a.py:1);send (b.py:22) 6",
            "thread (12): MainThread;run (a.py:2);send (b.py:30) 2",
            "thread (13): m-0;take (c.py:9) 2",
            "not a stack",
        ]
    )
    assert n_samples == 10
    assert rows == [(0.8, "send (b.py)"), (0.2, "take (c.py)")]


def test_cpu_time_is_counted_by_thread(monkeypatch):
    own = threading.get_native_id()
    server = SimpleNamespace(process=SimpleNamespace(pid=own), name="this one")
    with cpu_by_thread(server) as cpu:
        sum(number * number for number in range(3_000_000))
    assert cpu[own] > 0.0
    names = {7: "embellama-async-bulk_0", 8: "embellama-m-1", 9: "uvloop_0"}
    monkeypatch.setattr("benches.serving.where._thread_names", lambda server: names)
    spent = {own: 4.0, 7: 1.0, 8: 2.0, 9: 0.25, 10: 0.5, 11: 0.0}
    assert grouped(spent, server) == {
        "the event loop": 4.0,
        "threads of calls": 1.0,
        "workers": 2.0,
        "other threads": 0.75,
    }


def test_a_server_that_has_nothing_to_do_is_idle(monkeypatch):
    used = iter([0.0, 0.2, 0.2, 0.201])
    monkeypatch.setattr("benches.serving.processes.cpu_s", lambda process: next(used))
    monkeypatch.setattr("psutil.Process", lambda pid: pid)
    wait_until_idle(SimpleNamespace(process=SimpleNamespace(pid=1), name="ours"))
    assert next(used, None) is None  # busy once, and asked again


# ── the client that does not wait ────────────────────────────────────────────────────────────


@asynccontextmanager
async def answering(answer):
    """A server whose answers to (request id) are bytes; None: it hangs up."""

    handlers = set()

    async def serve_one(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            await converse(reader, writer)
        finally:
            writer.close()

    async def converse(reader, writer):
        while head := await _head(reader):
            fields = dict(line.split(b": ") for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            data = answer(fields[b"x-request-id"].decode())
            if data is None:
                break
            for at in range(0, len(data), 40):  # in pieces, some within the headers
                writer.write(data[at : at + 40])
                await writer.drain()
                await asyncio.sleep(0.001)

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*handlers, return_exceptions=True)  # those who were hung up on


async def _head(reader):
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


def answered(status, body=b"x" * 100):
    return b"HTTP/1.1 %d X\r\nserver: y\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def asked_of(answer, *, n, per_s=1000.0):
    async def ask():
        async with answering(answer) as port:
            client = Client(port, "/v1/embeddings", [b"{}", b"[]"], "t")
            async with client.ended():
                await client.at_rate(per_s, n / per_s)
                await client.all_answered(5.0)
            return client

    return asyncio.run(ask())


def test_each_request_gets_its_own_answer():
    statuses = {f"t-{number}": (200, 503)[number % 2] for number in range(20)}
    client = asked_of(lambda name: answered(statuses[name]), n=20)
    assert {client.id_of(one.number): one.status for one in client.asked} == statuses
    assert all(one.due_s <= one.sent_s < one.done_s for one in client.asked)
    first = min(one.sent_s for one in client.asked)
    assert len(list(client.answers(first, first + 10.0))) == 10


def test_a_connection_that_ends_is_an_answer_lost():
    client = asked_of(lambda name: None if name == "t-1" else answered(200), n=3, per_s=50.0)
    assert [one.status for one in client.asked] == [200, LOST, 200]
    assert all(one.done_s > 0.0 for one in client.asked)


def test_nobody_who_listens_is_told_apart():
    async def ask():
        async with answering(lambda name: b"") as port:
            pass  # free again
        return await Client(port, "/", [b"{}"], "t").ask()

    assert asyncio.run(ask()).status == CLOSED


def test_clients_that_wait_ask_one_question_at_a_time():
    async def ask():
        async with answering(lambda name: answered(200)) as port:
            client = Client(port, "/", [b"{}"], "t")
            async with client.ended():
                await client.in_turns(2, 0.2)
            return client.asked

    asked = sorted(asyncio.run(ask()), key=lambda one: one.sent_s)
    assert len(asked) > 4
    for one, next_but_one in zip(asked, asked[2:], strict=False):
        assert one.done_s <= next_but_one.sent_s


# ── limits ───────────────────────────────────────────────────────────────────────────────────


def test_answers_after_a_flood_are_counted_by_half_second():
    times = [0.1, 0.2, 0.6, 1.4, -0.1, 9.0]
    asked = [Asked(n, 5.0, 5.0, 10.0 + at, 200) for n, at in enumerate(times)]
    asked.append(Asked(9, 5.0, 5.0, 10.3, 503))
    assert rates_after(10.0, asked, 1.5) == [4.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("rates", "begins_s"),
    [([10, 10, 0, 0], 0.0), ([0, 2, 14, 4, 9], 0.5), ([4, 6, 5, 6], None), ([9, 7], 0.0)],
)
def test_full_speed_is_that_of_a_whole_second(rates, begins_s):
    assert recovered_s(rates, 10.0) == begins_s


def test_an_answer_is_lost_when_it_was_made_or_its_request_was_surely_read():
    client = Client(1, "/", [b""], "t")
    client.asked = [
        Asked(0, 0.0, 9.9, 10.1, 200),
        Asked(1, 0.0, 9.9, 10.1, LOST),  # just before the end, and nobody noted it
        Asked(2, 0.0, 9.9, 10.1, LOST),  # answered, says the server
        Asked(3, 0.0, 2.0, 10.1, LOST),  # long before
        Asked(4, 0.0, 10.2, 10.2, CLOSED),
    ]
    lost = lost_answers(client, {"t-0": 200, "t-2": 200}, told_s=10.0)
    assert [one.number for one in lost] == [2, 3]


def test_a_limit_says_whether_it_is_kept():
    kept, never = Limit("refusals", 49.96, 50.0, "ms"), Limit("full speed", None, 2.0, "s")
    assert (kept.is_kept, never.is_kept, Limit("lost", 1, 0, "").is_kept) == (True, False, False)
    assert str(kept) == "refusals: 49.96 ms (limit 50 ms) holds"
    assert str(never) == "full speed: never (limit 2 s) DOES NOT HOLD"


# ── runs of the smallest kind ────────────────────────────────────────────────────────────────


def test_a_flood_is_admitted_in_part_and_sigterm_loses_nothing(
    minilm_path, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(overload, "AFTER_S", 1.0)
    written = tmp_path / "out.json"
    options = ["--model", str(minilm_path), "--seconds", "1", "--closed-s", "1"]
    options += ["--max-wait", "0.5", "--json", str(written)]
    monkeypatch.setattr(sys, "argv", ["overload", *options])
    assert overload.main() in (0, 1)  # how fast this machine is today is no matter of the test
    said = capsys.readouterr().out
    assert "neither admitted nor refused: 0 requests (limit 0 requests) holds" in said
    assert "SIGTERM: exit status: 0 (limit 0) holds" in said
    assert "SIGTERM: admitted, and no answer: 0 requests (limit 0 requests) holds" in said
    figures = Results.read(written).figures
    assert 0.0 < figures["flood: admitted"].median < 1.0
    assert figures["memory peak"].median >= figures["memory before"].median > 0.0
    assert figures["flood: refused, p50"].median < figures["flood: admitted, max"].median


def test_both_are_driven_in_turns_and_the_parts_of_a_request_told(
    minilm_path, tmp_path, monkeypatch, capsys
):
    if shutil.which("wrk") is None:
        pytest.skip("needs wrk: apt install wrk, or brew install wrk")

    @contextmanager
    def stand_in(program, path, **given):
        with embellama_server(path, **given) as server:
            yield replace(server, name="llama-server")

    monkeypatch.setattr(serve, "llama_server", stand_in)
    written = tmp_path / "out.json"
    options = ["--llama-server", sys.executable, "--model", str(minilm_path), "--threads", "1"]
    options += ["--clients", "2", "--texts", "1", "--seconds", "1", "--rounds", "1", "--profile"]
    monkeypatch.setattr(sys, "argv", ["serve", *options, "--json", str(written)])
    assert serve.main() == 0
    medians = {name: f.median for name, f in Results.read(written).figures.items()}
    case = "1 text, 2 clients"
    rates = [medians[f"{case}, {name}"] for name in ("embellama", "llama-server")]
    assert medians[f"{case}, ratio"] == pytest.approx(rates[0] / rates[1])
    assert medians["lowest cosine of both"] == pytest.approx(1.0, abs=1e-3)
    inside = [medians[f"where, 1 x 2, {part}"] for part in ("queue", "tokenization", "inference")]
    assert 0.0 < sum(inside) < medians["where, 1 x 2, answer"]
    assert medians["where, 1 x 2, CPU of the event loop"] > 0.0


def test_servers_that_compute_something_else_are_not_compared(monkeypatch):
    rows = {"ours": np.eye(2, dtype=np.float32), "theirs": np.eye(2, dtype=np.float32)[::-1]}
    monkeypatch.setattr(serve, "vectors", lambda server, texts: rows[server.name])
    ours, theirs = SimpleNamespace(name="ours"), SimpleNamespace(name="theirs")
    assert serve.check_same(ours, ours) == 1.0
    with pytest.raises(ServerError, match=r"a cosine of 0\.000000, and 0\.9999 is wanted"):
        serve.check_same(ours, theirs)

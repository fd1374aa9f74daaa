"""The server under ten times the load that it can do: who is served, who is not, and what after.

    python -m benches.overload [--seconds 60] [--factor 10] [--model minilm:BF16] [--texts 32]
                               [--closed-s 10] [--max-wait 10] [--request-timeout 60] [--threads N]
                               [--backend auto] [--json FILE] [--compare old.json]

First clients that wait for their answers find the rate that can be kept up. Then requests come at
--factor times that rate for --seconds, whatever becomes of them: each takes an idle connection or
opens one. Told are the share that is admitted, how long admitted and refused ones take from being
sent, the server's memory, how late the client was and how much of a core it took (it shares the
machine with the server), and from the flood's end the rate of answers, half second by half second.
At last the same flood for a shorter time with SIGTERM in the middle: whatever the server's log says
was answered has to have arrived. Ends with status 1 where a limit is broken.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil

from benches.machine import describe_machine
from benches.results import Results, finished, parsed, parser, started
from benches.serving.client import CLOSED, LOST, Asked, Client
from benches.serving.limits import (
    MAX_REFUSAL_MS,
    RECOVERY_S,
    Limit,
    lost_answers,
    rates_after,
    recovered_s,
)
from benches.serving.processes import (
    EMBEDDINGS,
    Server,
    ServerError,
    cpu_s,
    embellama_server,
    wait_until_idle,
)
from benches.serving.wrk import body
from embellama._parallel import available_cores
from embellama.bench.texts import short_texts
from embellama.hub.resolve import resolve_model

T = TypeVar("T")

N_CLIENTS = 8
"""Clients that find the rate that can be kept up: enough that the server never waits for one."""

N_BODIES = 256
AFTER_S = 6.0
SAMPLE_S = 0.1
MAX_GROWTH_MB = 64.0
"""Most by which memory may grow: a thousand waiting requests are a few megabytes, and answers are
written one by one."""

TERM_SECONDS = 10.0
TURNED_AWAY = (429, 503)


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--model", default="minilm:BF16")
    options_of.add_argument("--seconds", type=float, default=60.0)
    options_of.add_argument("--factor", type=float, default=10.0)
    options_of.add_argument("--texts", type=int, default=32)
    options_of.add_argument("--closed-s", type=float, default=10.0)
    options_of.add_argument("--max-wait", type=float, default=10.0)
    options_of.add_argument("--request-timeout", type=float, default=60.0)
    options_of.add_argument("--threads", type=int, default=available_cores(physical=True))
    options = parsed(options_of)
    results = started("overload", describe_machine(), options)
    try:
        with tempfile.TemporaryDirectory(prefix="overload-") as scratch:
            limits = measure(options, results, Path(scratch))
    except ServerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    for limit in limits:
        print(limit)
    regressed = finished(results, options)
    return regressed or int(not all(limit.is_kept for limit in limits))


def measure(options: Namespace, results: Results, scratch: Path) -> list[Limit]:
    path = resolve_model(options.model).path
    wait, timeout = f"{options.max_wait}s", f"{options.request_timeout}s"
    told = ("--max-wait", wait, "--request-timeout", timeout)
    texts = short_texts(options.texts * N_BODIES)
    starts = range(0, len(texts), options.texts)
    bodies = [json.dumps(body(texts[at : at + options.texts])).encode() for at in starts]
    given = {"n_threads": options.threads, "scratch": scratch, "options": told}
    with embellama_server(path, **given) as server:
        sustained = _run(_sustained(server, bodies, options.closed_s))
        results.add("sustained", sustained, "requests/s", better="higher")
        wait_until_idle(server)
        limits = _run(_flooded(server, bodies, sustained, options, results))
    with embellama_server(path, **given) as server:
        _run(_sustained(server, bodies, min(options.closed_s, 2.0)))  # it knows its pace then
        wait_until_idle(server)
        limits += _run(_terminated(server, bodies, options.factor * sustained, options, results))
    return limits


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, on uvloop where it is installed: the client has to be light."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(coroutine)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def _sustained(server: Server, bodies: Sequence[bytes], seconds: float) -> float:
    """Return the requests a second that clients get answered who wait for their answers."""
    client = Client(server.port, EMBEDDINGS, bodies, "closed")
    async with client.ended():
        start = time.perf_counter()
        await client.in_turns(N_CLIENTS, seconds)
        bad = Counter(one.status for one in client.asked) - Counter({200: 10**9, 503: 10**9})
        if bad:
            raise ServerError(f"with {N_CLIENTS} clients, there were statuses {dict(bad)}")
        # the first part finds the server idle, and its memory unmapped
        begin = start + seconds / 5
        return sum(1 for _ in client.answers(begin, start + seconds)) / (seconds * 4 / 5)


async def _flooded(
    server: Server, bodies: Sequence[bytes], sustained: float, options: Namespace, results: Results
) -> list[Limit]:
    flood = Client(server.port, EMBEDDINGS, bodies, "flood")
    after = Client(server.port, EMBEDDINGS, bodies, "after")
    async with flood.ended(), after.ended():
        rss: list[float] = []
        sampling = asyncio.ensure_future(_sample(server, rss))
        process, start = psutil.Process(server.process.pid), time.perf_counter()
        own, theirs = time.process_time(), cpu_s(process)
        await flood.at_rate(options.factor * sustained, options.seconds)
        end = time.perf_counter()
        own, theirs = time.process_time() - own, cpu_s(process) - theirs
        await after.in_turns(N_CLIENTS, AFTER_S)
        await flood.all_answered(options.request_timeout + 5.0)
        sampling.cancel()
    wait_until_idle(server)
    rss.append(_rss_mb(server))
    results.add("flood: CPU of the client", own / (end - start), "cores", better="lower")
    # less than there is: something else runs on this machine, and rates say little
    results.add("flood: CPU of the server", theirs / (end - start), "cores", better="higher")
    in_flood = sum(1 for _ in flood.answers(start, end)) / (end - start)
    results.add("flood: answered", in_flood, "requests/s", better="higher")
    limits = _add_answers(results, flood.asked, options.request_timeout)
    limits.append(_add_memory(results, rss))
    rates = rates_after(end, [*flood.asked, *after.asked], AFTER_S)
    print("answers/s after the flood, by half second:", *(f"{rate:.0f}" for rate in rates))
    new = min((one.done_s for one in after.asked if one.status == 200), default=None)
    if new is not None:
        results.add("after: the first new request", new - end, "s", better="lower")
    # once more: the machine may have become slower meanwhile
    now = await _sustained(server, bodies, options.closed_s)
    results.add("sustained, once more", now, "requests/s", better="higher")
    again = recovered_s(rates, min(sustained, now))
    if again is not None:
        results.add("after: full speed", again, "s", better="lower")
    limits.append(Limit("full speed again after", again, RECOVERY_S, "s"))
    return limits


def _add_answers(results: Results, asked: Sequence[Asked], timeout_s: float) -> list[Limit]:
    statuses = Counter(one.status for one in asked)
    print("statuses:", ", ".join(f"{status}: {n}" for status, n in sorted(statuses.items())))
    results.add("flood: admitted", statuses[200] / len(asked), "of 1", better="higher")
    late = [(one.sent_s - one.due_s) * 1e3 for one in asked]
    results.add("flood: client late, p99", float(np.percentile(late, 99)), "ms", better="lower")
    limits = []
    for what, wanted in (("admitted", (200,)), ("refused", TURNED_AWAY)):
        took = [one.latency_s * 1e3 for one in asked if one.status in wanted]
        if not took:
            continue
        for which, value in zip(("p50", "p99", "max"), _quantiles(took), strict=True):
            results.add(f"flood: {what}, {which}", value, "ms", better="lower")
        if what == "admitted":
            limits.append(Limit("longest admitted request", max(took), timeout_s * 1e3, "ms"))
        else:
            limits.append(Limit("longest refusal", max(took), MAX_REFUSAL_MS, "ms"))
            slow = sum(value > MAX_REFUSAL_MS for value in took) / len(took)
            results.add(f"flood: refused after {MAX_REFUSAL_MS:g} ms", slow, "of 1", better="lower")
    others = sum(n for status, n in statuses.items() if status not in (200, *TURNED_AWAY))
    return [*limits, Limit("neither admitted nor refused", others, 0, "requests")]


def _quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    p50, p99 = np.percentile(values, (50, 99)).tolist()
    return p50, p99, max(values)


async def _sample(server: Server, rss: list[float]) -> None:
    while True:
        rss.append(_rss_mb(server))
        await asyncio.sleep(SAMPLE_S)


def _rss_mb(server: Server) -> float:
    return float(psutil.Process(server.process.pid).memory_info().rss) / 2**20


def _add_memory(results: Results, rss: Sequence[float]) -> Limit:
    before, peak, after = rss[0], max(rss), rss[-1]
    for name, value in (("before", before), ("peak", peak), ("after", after)):
        results.add(f"memory {name}", value, "MiB", better="lower")
    return Limit("memory grew by", peak - before, MAX_GROWTH_MB, "MiB")


async def _terminated(
    server: Server, bodies: Sequence[bytes], per_s: float, options: Namespace, results: Results
) -> list[Limit]:
    """Send SIGTERM in the middle of a flood."""
    seconds = min(options.seconds, TERM_SECONDS)
    client = Client(server.port, EMBEDDINGS, bodies, "term")
    async with client.ended():
        flooding = asyncio.ensure_future(client.at_rate(per_s, seconds))
        await asyncio.sleep(seconds / 2)
        told_s = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        await flooding
        await client.all_answered(options.request_timeout + 5.0)
        status = await asyncio.to_thread(server.process.wait, options.request_timeout)
        took_s = time.perf_counter() - told_s
    statuses = Counter(one.status for one in client.asked)
    names = {LOST: "cut off", CLOSED: "nobody listened"}
    print(
        "SIGTERM under load:",
        ", ".join(f"{names.get(status, status)}: {n}" for status, n in sorted(statuses.items())),
    )
    waiting = sum(one.sent_s < told_s < one.done_s for one in client.asked if one.status == 200)
    results.add("SIGTERM: answered after it", waiting, "requests", better="higher")
    # those that wait are answered or cancelled; the shorter the line, the sooner
    results.add("SIGTERM: until the process ended", took_s, "s", better="lower")
    noted = {e["request_id"]: e["status"] for e in server.events() if "request_id" in e}
    lost = lost_answers(client, noted, told_s)
    return [
        Limit("SIGTERM: exit status", status, 0, ""),
        Limit("SIGTERM: admitted, and no answer", len(lost), 0, "requests"),
    ]


if __name__ == "__main__":
    sys.exit(main())

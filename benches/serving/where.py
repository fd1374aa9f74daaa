"""Where the time of a request goes: for who waits for it, and on which threads it is computed.

A probe asks beside the other clients, and has the server tell in its answers what the engine took.
CPU time is counted by thread. With py-spy installed, each thread has a name, and the functions are
told in which the interpreter is most of the time; a collection of garbage counts for the function
that it interrupts.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from benches.results import Results
from benches.serving.processes import EMBEDDINGS, Server, ServerError
from benches.serving.wrk import drive

SETTLED_S = 0.5
"""After it the other clients' requests wait in line, as they do from then on."""

SAMPLES_A_S = 200
N_FUNCTIONS = 15
OTHER_THREADS = "other threads"

_THREAD = re.compile(r'Thread (\d+) \([^)]*\): "([^"]*)"')
_STACK = re.compile(r"thread \(\d+\): (?P<stack>.*) (?P<n>\d+)")
_GROUPS = (
    ("embellama-async", "threads of calls"),
    ("asyncio", "threads of calls"),
    ("embellama-", "workers"),
)
"""Threads by the beginning of their names, the longest first."""


def profile(
    results: Results, wrk: str, server: Server, bodies: Path, case: tuple[int, int], seconds: float
) -> None:
    """Note where the time of a request goes, with so many clients.

    Args:
        results: Where it is noted.
        wrk: The program.
        server: Ours.
        bodies: A file of them.
        case: Texts of a request, and clients.
        seconds: How long to watch.
    """
    n_texts, n_clients = case
    title = f"where, {n_texts} x {n_clients}"
    with cpu_by_thread(server) as cpu:
        n_others, probes = _watched(wrk, server, bodies, n_clients, seconds)
    for name, values in probes.items():
        results.add(f"{title}, {name}", statistics.median(values), "ms", better="lower")
    n_requests = n_others + len(probes["answer"])
    for group, spent in sorted(grouped(cpu, server).items()):
        per_request = spent / n_requests * 1e3
        results.add(f"{title}, CPU of {group}", per_request, "ms", better="lower")
    if n_clients > 1:
        _tell_functions(wrk, server, bodies, n_clients, seconds)


def _watched(
    wrk: str, server: Server, bodies: Path, n_clients: int, seconds: float
) -> tuple[int, dict[str, list[float]]]:
    """Return how many requests the other clients made, and the probe's milliseconds by part."""
    n_others: list[int] = []

    def others() -> None:
        took = drive(wrk, server, bodies, n_clients=n_clients - 1, seconds=seconds)
        n_others.append(took.n_requests)

    beside, begin = threading.Thread(target=others), time.perf_counter()
    if n_clients > 1:
        beside.start()
        time.sleep(min(SETTLED_S, seconds / 2))
    until = begin + seconds
    probes = parts_of(_probe(server, bodies, until))
    if n_clients > 1:
        beside.join()
        if not n_others:
            raise ServerError("the clients beside the probe failed")
    return sum(n_others), probes


def _probe(server: Server, bodies: Path, until: float) -> Iterator[dict[str, float]]:
    """Ask one question after the other; yield the seconds of each part of each."""
    lines = bodies.read_text(encoding="utf-8").splitlines()[::-1]  # not what wrk begins with
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": "application/json"}
    number = 0
    while number == 0 or time.perf_counter() < until:
        asked = json.loads(lines[number % len(lines)]) | {"embellama": {"details": True}}
        sent = json.dumps(asked)
        start = time.perf_counter()
        connection.request("POST", EMBEDDINGS, sent, headers)
        data = connection.getresponse().read()
        seconds = time.perf_counter() - start
        yield {"answer_s": seconds, **json.loads(data)["embellama"]["timings"]}
        number += 1
    connection.close()


def parts_of(asked: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """Divide the time of requests: milliseconds of each, by part.

    Inference is what the request's texts were computed for, their share of micro-batches; queue is
    until the first was begun. What of the engine's time is neither is in the engine's Python, and in
    the shares of others and micro-batches that began later. What of the answer's time is not
    the engine's is HTTP, JSON, and waiting for the event loop, or for a thread of the engine's.
    """
    found: dict[str, list[float]] = {}
    for one in asked:
        known = one["queue_s"] + one["tokenize_s"] + one["inference_s"]
        parts = {
            "answer": one["answer_s"],
            "HTTP, JSON and the loop": one["answer_s"] - one["total_s"],
            "queue": one["queue_s"],
            "tokenization": one["tokenize_s"],
            "inference": one["inference_s"],
            "the rest of the engine": max(one["total_s"] - known, 0.0),
        }
        for name, seconds in parts.items():
            found.setdefault(name, []).append(seconds * 1e3)
    return found


@contextmanager
def cpu_by_thread(server: Server) -> Iterator[dict[int, float]]:
    """Count CPU seconds by thread id while a block runs; they are there when it has ended."""
    process = psutil.Process(server.process.pid)
    before = {t.id: t.user_time + t.system_time for t in process.threads()}
    spent: dict[int, float] = {}
    yield spent
    for t in process.threads():
        spent[t.id] = t.user_time + t.system_time - before.get(t.id, 0.0)


def grouped(cpu: Mapping[int, float], server: Server) -> dict[str, float]:
    """Add up CPU seconds by kind of thread; without py-spy only the loop's is known."""
    names = _thread_names(server)
    found: defaultdict[str, float] = defaultdict(float)
    for thread, seconds in cpu.items():
        if thread == server.process.pid:
            group = "the event loop"
        else:
            known = names.get(thread, "")
            group = next((to for start, to in _GROUPS if known.startswith(start)), OTHER_THREADS)
        found[group] += seconds
    return {group: seconds for group, seconds in found.items() if seconds}


def _py_spy() -> str | None:
    """Find it, also beside a Python whose environment is not activated."""
    return shutil.which("py-spy") or shutil.which("py-spy", path=Path(sys.executable).parent)


def _thread_names(server: Server) -> dict[int, str]:
    spy = _py_spy()
    if spy is None:
        return {}
    command = [spy, "dump", "--nonblocking", "--pid", str(server.process.pid)]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return {int(number): name for number, name in _THREAD.findall(told.stdout)}


def _tell_functions(wrk: str, server: Server, bodies: Path, n_clients: int, seconds: float) -> None:
    """Print in which functions the interpreter is: those that hold its lock."""
    spy = _py_spy()
    if spy is None:
        print("  pip install py-spy to see the functions")
        return
    target = bodies.with_suffix(".stacks")
    command = [spy, "record", "--pid", str(server.process.pid), "--duration"]
    command += [str(max(round(seconds) - 1, 1)), "--rate", str(SAMPLES_A_S), "--gil", "--threads"]
    with subprocess.Popen(
        [*command, "--format", "raw", "--output", str(target)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as spying:
        took = drive(wrk, server, bodies, n_clients=n_clients, seconds=seconds)
        _, said = spying.communicate(timeout=60)
    if spying.returncode or not target.exists():
        print(f"  py-spy failed: {said.strip().splitlines()[-1:]}")
        return
    stacks = target.read_text(encoding="utf-8").splitlines()
    share, rows = by_function(stacks)
    held = share / (SAMPLES_A_S * max(round(seconds) - 1, 1))
    print(
        f"  the interpreter runs {held:.0%} of the time, at {took.per_s:.0f} requests/s; it is in"
    )
    for part, name in rows[:N_FUNCTIONS]:
        print(f"  {part:6.1%}  {name}")


def by_function(stacks: Iterable[str]) -> tuple[int, list[tuple[float, str]]]:
    """Return the samples, and the share of each innermost function, the largest first.

    Args:
        stacks: Lines of py-spy's raw format: thread and frames between semicolons, and a count.
    """
    found: Counter[str] = Counter()
    for line in stacks:
        if matched := _STACK.fullmatch(line):
            innermost = matched["stack"].rpartition(";")[2]
            found[re.sub(r":\d+\)$", ")", innermost)] += int(matched["n"])
    n_samples = found.total()
    return n_samples, [(n / n_samples, name) for name, n in found.most_common()]

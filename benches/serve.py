"""The server beside llama.cpp's own, on the same file, driven by the same client.

    python -m benches.serve --llama-server PATH [--model minilm:BF16] [--clients 1,8,64]
                            [--texts 1,32] [--seconds 10] [--rounds 3] [--threads N]
                            [--profile] [--backend auto] [--json FILE] [--compare old.json]

The client is wrk with one thread, which posts different texts of about 14 tokens to
/v1/embeddings, so that nothing is cached, and gets JSON numbers. Both servers run all the time and
take turns; who is first changes from round to round. llama-server runs with -np 32 -b 512 -ub 512
-fa on. Both have the same number of threads and log as they do by default, to a file. Ratios are
those of neighbouring turns. --profile tells where the time of a request to embellama goes; with
py-spy installed also in which functions of the event loop's thread.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections import defaultdict
from itertools import product
from pathlib import Path

from benches.machine import describe_machine
from benches.results import Results, finished, parsed, parser, started
from benches.serving.processes import (
    Server,
    ServerError,
    embellama_server,
    found_llama_server,
    least_cosine,
    llama_server,
    vectors,
    wait_until_idle,
)
from benches.serving.where import profile
from benches.serving.wrk import Drive, drive, found_wrk, write_bodies
from embellama._parallel import available_cores
from embellama.bench.texts import short_texts
from embellama.hub.resolve import resolve_model

MIN_COSINE = 0.9999
WARM_UP_S = 1.0

Case = tuple[int, int]
"""Texts of a request, and clients."""


def check_same(one: Server, other: Server) -> float:
    """Return the lowest cosine of the vectors of two servers.

    Raises:
        ServerError: They do not compute the same.
    """
    texts = short_texts(64, seed=3)
    least = least_cosine(vectors(one, texts), vectors(other, texts))
    if least < MIN_COSINE:
        raise ServerError(
            f"the vectors of {one.name} and {other.name} have a cosine of {least:.6f}, and "
            f"{MIN_COSINE} is wanted: they do not compute the same"
        )
    return least


def in_turns(
    wrk: str,
    servers: list[Server],
    bodies: dict[int, Path],
    cases: list[Case],
    options: Namespace,
) -> dict[Case, dict[str, list[Drive]]]:
    """Drive each server in each case once a round; a short first round does not count."""
    found: dict[Case, dict[str, list[Drive]]] = defaultdict(lambda: defaultdict(list))
    for number in range(options.rounds + 1):
        for n_texts, n_clients in cases:
            for server in servers if number % 2 else servers[::-1]:
                wait_until_idle(*servers)
                took = drive(
                    wrk,
                    server,
                    bodies[n_texts],
                    n_clients=n_clients,
                    seconds=options.seconds if number else min(WARM_UP_S, options.seconds),
                )
                if not number:
                    continue
                if not took.n_requests:
                    raise ServerError(
                        f"{server.name} answered no request of {n_texts} texts in "
                        f"{options.seconds:g} s with {n_clients} clients; --seconds more"
                    )
                found[n_texts, n_clients][server.name].append(took)
    return found


def add(results: Results, case: Case, drives: dict[str, list[Drive]]) -> None:
    """Note what was found in a case, and how one server stands to the other."""
    n_texts, n_clients = case
    title = f"{n_texts} text{'s' * (n_texts > 1)}, {n_clients} client{'s' * (n_clients > 1)}"
    for name, runs in drives.items():
        rates = [run.per_s for run in runs]
        results.add(f"{title}, {name}", rates, "requests/s", better="higher")
        for which in ("p50", "p99"):
            values = [getattr(run, f"{which}_ms") for run in runs]
            results.add(f"{title}, {name}, {which}", values, "ms", better="lower")
    (_, ours), (_, theirs) = drives.items()
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [one.per_s / other.per_s for one, other in pairs]
    results.add(f"{title}, ratio", ratios, "x", better="higher")
    ratios = [one.p99_ms / other.p99_ms for one, other in pairs]
    results.add(f"{title}, ratio of p99", ratios, "x", better="lower")


def numbers(given: str) -> list[int]:
    """Read numbers between commas."""
    found = [int(part) for part in given.split(",")]
    if min(found) < 1:
        raise ValueError(given)
    return found


def measure(options: Namespace, results: Results, scratch: Path) -> None:
    wrk, program = found_wrk(), found_llama_server(options.llama_server)
    path = resolve_model(options.model).path
    bodies = {n: write_bodies(scratch / f"{n}.txt", n) for n in options.texts}
    given = {"n_threads": options.threads, "scratch": scratch}
    with (
        embellama_server(path, **given) as ours,
        llama_server(program, path, **given) as theirs,
    ):
        print(f"{path.name}, {options.threads} threads")
        cosine = check_same(ours, theirs)
        results.add("lowest cosine of both", cosine, "", better="higher")
        servers = [ours, theirs]
        cases = list(product(options.texts, options.clients))
        found = in_turns(wrk, servers, bodies, cases, options)
        for case in cases:
            add(results, case, {server.name: found[case][server.name] for server in servers})
        if options.profile:
            for case in cases:
                wait_until_idle(*servers)
                profile(results, wrk, ours, bodies[case[0]], case, options.seconds)


def main() -> int:
    options_of = parser(__doc__)
    options_of.add_argument("--llama-server", help="the program, where it is not on PATH")
    options_of.add_argument("--model", default="minilm:BF16")
    options_of.add_argument("--clients", type=numbers, default=[1, 8, 64])
    options_of.add_argument("--texts", type=numbers, default=[1, 32])
    options_of.add_argument("--seconds", type=float, default=10.0)
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--threads", type=int, default=available_cores(physical=True))
    options_of.add_argument("--profile", action="store_true", help="say where the time goes")
    options = parsed(options_of)
    results = started("serve", describe_machine(), options)
    try:
        with tempfile.TemporaryDirectory(prefix="serve-") as scratch:
            measure(options, results, Path(scratch))
    except ServerError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    return finished(results, options)


if __name__ == "__main__":
    sys.exit(main())

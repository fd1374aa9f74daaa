"""The client: wrk with one thread, the same for every server.

wrk corrects its latencies for requests that a slow server kept it from sending.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.serving.processes import EMBEDDINGS, MODEL, Server, ServerError
from embellama.bench.texts import short_texts

SCRIPT = Path(__file__).with_name("post.lua")

N_TEXTS = 8192
"""Different texts of a file of bodies: more than two seconds of them."""

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Drive:
    """What one run of wrk found.

    Attributes:
        per_s: Requests a second.
        p50_ms: Of the latency.
        p99_ms: Of the latency.
        n_requests: Requests answered.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    n_requests: int


def found_wrk() -> str:
    """Return the program.

    Raises:
        ServerError: There is none.
    """
    program = shutil.which("wrk")
    if program is None:
        raise ServerError("there is no wrk; install it: apt install wrk, or brew install wrk")
    return program


def write_bodies(path: Path, n_texts: int) -> Path:
    """Write bodies of so many texts each, no text twice."""
    texts = short_texts(max(N_TEXTS, 64 * n_texts))
    starts = range(0, len(texts) - n_texts + 1, n_texts)
    path.write_text("\n".join(json.dumps(body(texts[at : at + n_texts])) for at in starts) + "\n")
    return path


def body(texts: Sequence[str]) -> dict[str, object]:
    """Make a body that all servers take; a single text is sent as such."""
    return {"input": texts[0] if len(texts) == 1 else list(texts), "model": MODEL}


def drive(program: str, server: Server, bodies: Path, *, n_clients: int, seconds: float) -> Drive:
    """Have so many clients ask, each its next question when it has its answer.

    Raises:
        ServerError: Not every request was answered with 200.
    """
    command = [program, "-t1", f"-c{n_clients}", f"-d{math.ceil(seconds)}s"]
    command += ["--timeout", f"{TIMEOUT_S}s", "-s", str(SCRIPT), server.url + EMBEDDINGS]
    ran = subprocess.run([*command, "--", str(bodies)], capture_output=True, text=True, check=False)
    return read(ran.stdout, ran.stderr, server.name)


def read(stdout: str, stderr: str, name: str) -> Drive:
    """Read what wrk says.

    Raises:
        ServerError: As `drive`.
    """
    lines = stdout.strip().splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise ServerError(f"wrk failed: {(stderr or stdout).strip()[-300:] or 'it said nothing'}")
    told = json.loads(lines[-1])
    if told["n_refused"] or told["n_broken"]:
        raise ServerError(
            f"{name}: of {told['n_requests']} requests {told['n_refused']} were answered with "
            f"another status than 200, and {told['n_broken']} failed"
        )
    return Drive(
        told["n_requests"] / told["us"] * 1e6,
        told["p50_us"] / 1e3,
        told["p99_us"] / 1e3,
        told["n_requests"],
    )

"""A peer's process, seen from outside."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benches.peers.model_files import ROOT
from benches.peers.roster import PeerSpec

TIMEOUT_S = 900.0
"""How long a peer may take for one answer before it counts as hung."""

END_TIMEOUT_S = 15.0


class PeerError(Exception):
    """A peer cannot go on; the message says why."""


class PeerProcess:
    """One peer, alive in its own process until `close`.

    Its standard error goes to a file, whose end is told where it dies without an answer.
    """

    def __init__(
        self,
        spec: PeerSpec,
        *,
        python: str,
        n_threads: int,
        log: Path,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.spec = spec
        self._log = log
        self._timeout_s = timeout_s
        with log.open("wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    [python, "-m", "benches.peers.worker", spec.home],
                    cwd=ROOT,
                    env=_environment(n_threads),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,  # Ctrl-C is this process's to handle
                )
            except OSError as exc:
                raise PeerError(f"{python!r} could not be started: {exc}") from exc

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Have the peer do something, and return its answer.

        Raises:
            PeerError: It failed, died, or did not answer in time.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": verb, **fields}) + "\n")
            stdin.flush()
        except OSError as exc:
            raise PeerError(self._how_it_died()) from exc
        ready, _, _ = select.select([stdout], [], [], self._timeout_s)
        if not ready:
            raise PeerError(f"{verb}: no answer in {self._timeout_s:.0f} s")
        line = stdout.readline()
        if not line:
            raise PeerError(self._how_it_died())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{verb}: {answer['error']}")
        return answer

    def _how_it_died(self) -> str:
        try:
            status: int | str = self._process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            status = "none yet"
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"its process ended (status {status}); it said: {(said or ['nothing'])[-1]}"

    def close(self) -> None:
        """End the process: by the end of its input, or by force where that does not help.

        Force ends what it has started too. Closing twice does no harm.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _environment(n_threads: int) -> dict[str, str]:
    """Give every library the same number of threads, and none the network."""
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(counts, str(n_threads)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }

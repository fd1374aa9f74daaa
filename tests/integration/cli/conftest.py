"""Ways to run the command line: in this process, and as a command of its own."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from embellama.cli import main
from tests.tiny_cross_encoder import write_cross_encoder


@dataclass(frozen=True)
class Outcome:
    """What a command line came to."""

    status: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """Two threads of OpenMP on a busy machine mostly wait for each other."""
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "1")


@pytest.fixture
def run(monkeypatch, capsysbinary) -> Run:
    """Run a command line in this process."""

    def run_here(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return Outcome(status, out, err.decode())

    return run_here


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """Give the words that run a command line as a process of its own."""

    def words(*arguments):
        return [sys.executable, "-m", "embellama", *map(str, arguments)]

    return words


@pytest.fixture
def start(command):
    """Start a command line as a process of its own; it is ended with the test."""
    started = []

    def start_one(*arguments, **options):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command(*arguments), **{**pipes, **options})
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def prompted(minilm_path, tmp_path, monkeypatch) -> str:
    """Give the name of MiniLM with prompts, from a configuration file."""
    file = tmp_path / "embellama.toml"
    file.write_text(
        f"[[models]]\nmodel_name = 'prompted'\nmodel_path = '{minilm_path}'\n"
        "[models.prompts]\nquery = 'query: '\ndocument = 'passage: '\n"
    )
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    return "prompted"


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory) -> Path:
    """A cross-encoder of a few hundred kilobytes with random weights, limit 48 tokens."""
    return write_cross_encoder(tmp_path_factory.mktemp("rerank") / "cross-encoder.gguf")


needs_posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals and pipes")

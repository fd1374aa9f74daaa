"""How a command ends when its reader goes away, its user interrupts it, or its output is full."""

import json
import os
import signal
import subprocess

import pytest

from tests.integration.cli.conftest import needs_posix

pytestmark = needs_posix


@pytest.fixture
def long_input(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"a sentence of the long input\n" * 200_000)
    with path.open("rb") as file:
        yield file


def test_a_reader_that_leaves_ends_it_without_a_word(start, minilm_path, long_input):
    process = start("embed", minilm_path, "--format", "jsonl", stdin=long_input)
    assert len(json.loads(process.stdout.readline())) == 384
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr.read() == b""


def test_help_into_a_closed_pipe_ends_without_a_word(start):
    process = start("--help")
    process.stdout.close()
    assert process.wait(timeout=20) in (1, 141)  # typer writes the help, and says 1
    assert process.stderr.read() == b""


def test_ctrl_c_in_a_long_input_is_clean(start, minilm_path, long_input):
    process = start("embed", minilm_path, "--format", "jsonl", stdin=long_input)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out = process.stdout.read()
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == b""
    assert all(len(json.loads(line)) == 384 for line in out.splitlines()[:-1])


def test_ctrl_c_while_waiting_for_input_is_clean(start, minilm_path):
    process = start("-v", "embed", minilm_path)
    assert b"embellama.model.loaded" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err


def test_ctrl_c_leaves_no_half_file(start, minilm_path, tmp_path):
    process = start("-v", "embed", minilm_path, "--format", "csv", "-o", tmp_path / "out.csv")
    assert b"embellama.model.loaded" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["models"], ["embed", None, "x"]])
def test_a_full_disk_is_said_once(command, minilm_path, arguments):
    words = [minilm_path if word is None else word for word in arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"No space left on device" in done.stderr


def test_the_first_vectors_come_before_the_input_ends(start, minilm_path):
    process = start("embed", minilm_path, "--format", "jsonl")
    process.stdin.write(b"one of many lines\n" * 1100)
    process.stdin.flush()
    assert len(json.loads(process.stdout.readline())) == 384
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert len(out.splitlines()) == 1099

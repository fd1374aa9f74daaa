"""Several processes on one cache file, killed at any time; and disks that fill up."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from embellama.cache.disk import DiskCache
from tests.conftest import SOAK
from tests.integration.cache_hammer import N_NUMBERS
from tests.unit.cache.vectors import found_in, is_right, key_of

ROOT = Path(__file__).parents[2]
N_PROCESSES, N_KILLED = 8, 4


def start(path: Path, number: int, seconds: float) -> subprocess.Popen[bytes]:
    arguments = map(str, (path, number, seconds, f"{path}.log{number}"))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.cache_hammer", *arguments], cwd=ROOT
    )


def until_all_write(path: Path) -> None:
    end = time.monotonic() + 60
    while len([log for log in path.parent.glob("*.log?") if log.stat().st_size]) < N_PROCESSES:
        assert time.monotonic() < end
        time.sleep(0.05)


def kill_some(processes: list[subprocess.Popen[bytes]], seconds: float) -> None:
    """Kill half of them with -9, at random times of the run."""
    begin = time.monotonic()
    chooser = random.Random()
    times = sorted(chooser.uniform(0.0, 0.7 * seconds) for _ in range(N_KILLED))
    for process, at in zip(processes[:N_KILLED], times, strict=True):
        time.sleep(max(0.0, begin + at - time.monotonic()))
        process.kill()


def committed(path: Path) -> list[int]:
    logs = [log.read_bytes() for log in path.parent.glob("*.log?")]
    # a write of a killed process may have been cut short
    numbers = [np.frombuffer(log[: len(log) // 8 * 8], dtype="<i8") for log in logs]
    return np.unique(np.concatenate(numbers)).tolist()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_eight_processes_and_four_of_them_killed(tmp_path):
    seconds = 120.0 if SOAK else 2.5
    path = tmp_path / "cache.db"
    processes = [start(path, number, seconds) for number in range(N_PROCESSES)]
    try:
        until_all_write(path)
        kill_some(processes, seconds)
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert codes == [-9] * N_KILLED + [0] * (N_PROCESSES - N_KILLED)
    reports = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    total = {name: sum(report[name] for report in reports) for name in reports[0]}
    assert len(reports) == N_PROCESSES - N_KILLED
    assert total["wrong"] == total["lost"] == 0
    assert min(report["written"] for report in reports) > 0

    numbers = committed(path)
    cache = DiskCache(path, max_bytes=None)
    assert found_in(cache, numbers) == numbers  # what the killed ones had committed, too
    known = {key_of(number): number for number in numbers}
    n_entries = 0
    for entry in cache.entries():
        n_entries += 1
        if entry.key in known:  # others were committed by a process killed before it could log
            assert is_right(entry.value, known[entry.key])
    stats = cache.stats()
    cache.close()
    assert (stats.corrupt, stats.failures, stats.misses) == (0, 0, 0)
    assert list(tmp_path.glob("*damaged*")) == []
    assert len(numbers) <= n_entries <= N_NUMBERS
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    connection.close()
    path.unlink()  # the long form's is over a gigabyte, and pytest keeps its folders
    sys.stdout.write(
        f"survivors {total}; committed {len(numbers)}, kept {n_entries}, {stats.size_bytes} bytes\n"
    )


def run_on_small_disk(tmp_path: Path, before: str) -> subprocess.CompletedProcess[str]:
    command = f"{before} && exec {sys.executable} -m tests.integration.cache_full {tmp_path}/disk"
    (tmp_path / "disk").mkdir()
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_disk_that_is_full(tmp_path):
    mount = f"mount -t tmpfs -o size=6m none {tmp_path}/disk"
    if shutil.which("unshare") is None:
        pytest.skip("needs Linux's unshare")
    probe = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "true"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("needs user namespaces, to mount a small file system")
    done = run_on_small_disk(tmp_path, mount)
    assert done.returncode == 0, done.stderr
    assert "full" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit, which Windows lacks")
def test_a_file_that_may_not_grow(tmp_path):
    program = (
        "import resource, signal, sys\n"
        "from tests.integration.cache_full import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))\n"
        "main(sys.argv[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "SQLITE_" in done.stdout

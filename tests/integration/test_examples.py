"""Every program in examples/, run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import model_file

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "single": r"vector +384 numbers, length 1\.000000",
    "batch": r"A cat sleeps on the windowsill\.  →  A kitten naps by the window\.(?s:.)*\[1, 3\]",
    "stream_file": r"README\.md: How do I install it\?\n(?:0\.\d\d  .+\n){3}",
    "threads": r"320 texts, one by one, from 16 threads .*\n.* to one batch: \d\.\de-0[4-9] ",
    "two_models": r"small +Q8_0 +25\.3 MB\nloaded: full, small\nafter unloading one: full\n",
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_example(name):
    for file_type in ("F16", "Q8_0"):
        model_file(file_type)
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(SHOWN[name], done.stdout), done.stdout

"""Every program in examples/, run as a user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embellama.hub.catalog import find
from tests.conftest import model_file
from tests.tiny_cross_encoder import write_cross_encoder

EXAMPLES = Path(__file__).parents[2] / "examples"

SHOWN = {
    "async_app": r"nearest: The bank raised its rate\.\nindexed: \(500, 384\)\ntimeout True\n$",
    "single": r"vector +384 numbers, length 1\.000000",
    "batch": r"A cat sleeps on the windowsill\.  →  A kitten naps by the window\.(?s:.)*\[1, 3\]",
    "stream_file": r"README\.md: How do I install it\?\n(?:0\.\d\d  .+\n){3}",
    # to the last bit on the native kernels
    "threads": r"320 texts, one by one, from 16 threads .*\n"
    r".* to one batch: (0\.0e\+00|\d\.\de-0[4-9]) ",
    "two_models": r"small +Q8_0 +25\.3 MB\nloaded: full, small\nafter unloading one: full\n",
    "model_comparison": r"minilm:Q8_0 +25\.3 MB .*\n.*\(Spearman\): 0\.99\d\d\n.*: (9\d|100)\.\d%",
    "rerank": r"(  cosine 0\.\d\d  .+\n){5}(\d\. score 0\.\d\d  .+\n){3}$",
    "serve_openai": r"\n18 tokens\n.*'n_windows': 3.*\nended with status 0\n$",
    "caching": r", 0 of 300 from .*\n.*\nsecond .*, 300 of 300 from .*\n.*\n.* last bit: True\n$",
    "long_documents": r"error +982 tokens, the limit is 512\n(truncate  470 of 982 tokens .*\n){2}"
    r"window +3 windows, nothing dropped.*\n(chunk .*alone 0\.\d\d, in its context 0\.\d\d\n){3}$",
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_example(name, tmp_path):
    for file_type in ("F16", "Q8_0"):
        model_file(file_type)
    arguments = [write_cross_encoder(tmp_path / "judge.gguf")] if name == "rerank" else []
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        # one thread a pass: two on a busy machine mostly wait for each other
        env={
            **os.environ,
            "EMBELLAMA_N_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUTF8": "1",
        },
        capture_output=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert re.search(SHOWN[name], done.stdout), done.stdout


def test_the_rerank_example_says_where_to_get_a_model():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "rerank.py")],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (name,) = re.findall(r"examples/rerank\.py (\S+)", done.stderr)
    assert find(name).pooling_type == "rank"

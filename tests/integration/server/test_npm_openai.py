"""The official ``openai`` package of npm, unchanged."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from embellama.embedding import BATCH_TOLERANCE
from tests.integration.server.running import serving

SCRIPT = Path(__file__).with_name("npm_openai.mjs")
TEXT = "The cat sat on the mat."
INSTALL_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the package, and the script beside it."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    folder = tmp_path_factory.mktemp("npm")
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "openai"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("needs the npm registry, which does not answer")
    if done.returncode:
        pytest.skip(f"needs the npm registry: {done.stderr.strip()[-200:]}")
    shutil.copy(SCRIPT, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder, server, minilm_path):
    config = {"api_keys": ["a-key-of-the-tests"]}
    with serving(config, models={"minilm": minilm_path}, wait=False) as keyed:
        done = subprocess.run(
            ["node", SCRIPT.name, f"{server.url}/v1", f"{keyed.url}/v1"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(answer):
    return np.float32([item["embedding"] for item in answer["data"]])


def test_vectors_are_the_engines_own(results, server):
    engine = server.service.engine
    own = engine.embed("minilm", TEXT)
    np.testing.assert_array_equal(rows_of(results["one"]), [own])
    np.testing.assert_array_equal(rows_of(results["float"]), [own])
    coded = base64.b64decode(results["base64"]["data"][0]["embedding"])
    np.testing.assert_array_equal(np.frombuffer(coded, "<f4"), own)
    many = engine.embed_batch("minilm", [TEXT, "b", TEXT])
    assert np.abs(rows_of(results["many"]) - many).max() <= BATCH_TOLERANCE["F16"]
    short = engine.embed("minilm", TEXT, dimensions=64, force_dimensions=True)
    np.testing.assert_array_equal(rows_of(results["short"]), [short])


def test_the_rest_of_an_answer(results):
    assert results["one"]["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert [item["index"] for item in results["many"]["data"]] == [0, 1, 2]
    assert results["models"] == ["minilm"]
    assert (results["model"]["id"], results["model"]["object"]) == ("minilm", "model")


@pytest.mark.parametrize(
    ("call", "name", "status", "code", "param"),
    [
        ("empty", "BadRequestError", 400, "empty_input", "input[1]"),
        ("ids", "BadRequestError", 400, "invalid_input", "input[0]"),
        ("unknown", "NotFoundError", 404, "model_not_found", "model"),
        ("wrongKey", "AuthenticationError", 401, "invalid_api_key", None),
    ],
)
def test_errors_are_the_clients_own(results, call, name, status, code, param):
    told = results[call]
    assert (told["name"], told["status"], told["code"], told["param"]) == (
        name,
        status,
        code,
        param,
    )
    assert told["requestID"]

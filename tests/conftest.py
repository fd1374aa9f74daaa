"""Fixtures: the real MiniLM in several file types, and an environment without our variables."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from embellama import EmbeddingEngine, ModelConfig
from embellama.hub.convert import convert_folder
from embellama.hub.resolve import resolve_model
from tests.tiny_bert import write_folder

SKIP_MODEL = os.environ.get("EMBELLAMA_SKIP_MODEL_TESTS") == "1"
SOAK = os.environ.get("EMBELLAMA_SOAK") == "1"
QUIET = ModelConfig(n_threads=1, n_contexts=2)
"""Threads of one pass wait for each other by spinning; one each is steady on a busy machine."""

_VARIABLES = (
    "CONFIG",
    "MODEL_PATH",
    "MODEL_NAME",
    "CONTEXT_SIZE",
    "N_THREADS",
    "USE_GPU",
    "BATCH_SIZE",
    "BACKEND",
    "ISA",
)


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_works() -> None:
    """Take SIGINT again where the shell that started the tests in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in _VARIABLES:
        monkeypatch.delenv(f"EMBELLAMA_{variable}", raising=False)
    yield
    structlog.reset_defaults()  # capture_logs leaves it configured, and events would be printed


def model_file(file_type: str) -> Path:
    """Return MiniLM in a file type, made once in the user's cache."""
    if SKIP_MODEL:
        pytest.skip("needs the MiniLM model; unset EMBELLAMA_SKIP_MODEL_TESTS")
    return resolve_model(f"minilm:{file_type}").path


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """MiniLM in F16, the default."""
    return model_file("F16")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of a few kilobytes with random weights: 64 wide, 16 positions, words of a, b, c."""
    folder = write_folder(tmp_path_factory.mktemp("tiny"))
    return convert_folder(folder, folder / "tiny.gguf", file_type="F32").path


@pytest.fixture(scope="session")
def engine(minilm_path: Path):
    """An engine with MiniLM F16 under the name "minilm"; shared, so leave it as it is."""
    with EmbeddingEngine() as engine:
        engine.load_model(minilm_path, name="minilm", config=QUIET)
        yield engine

"""Fixtures: the real MiniLM in several file types, and an environment without our variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embellama import EmbeddingEngine
from embellama.hub.reference import parse_reference
from embellama.hub.resolve import resolve_model

SKIP_MODEL = os.environ.get("EMBELLAMA_SKIP_MODEL_TESTS") == "1"
SOAK = os.environ.get("EMBELLAMA_SOAK") == "1"
_VARIABLES = (
    "CONFIG",
    "MODEL_PATH",
    "MODEL_NAME",
    "CONTEXT_SIZE",
    "N_THREADS",
    "USE_GPU",
    "BATCH_SIZE",
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in _VARIABLES:
        monkeypatch.delenv(f"EMBELLAMA_{variable}", raising=False)


def model_file(file_type: str) -> Path:
    """Return MiniLM in a file type, made once in the user's cache."""
    if SKIP_MODEL:
        pytest.skip("needs the MiniLM model; unset EMBELLAMA_SKIP_MODEL_TESTS")
    return resolve_model(parse_reference(f"minilm:{file_type}")).path


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """MiniLM in F16, the default."""
    return model_file("F16")


@pytest.fixture(scope="session")
def engine(minilm_path: Path):
    """An engine with MiniLM F16 under the name "minilm"; shared, so leave it as it is."""
    with EmbeddingEngine() as engine:
        engine.load_model(minilm_path, name="minilm")
        yield engine

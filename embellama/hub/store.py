"""The directory where converted models are kept, and what lies in the hub's own cache.

::

    <cache directory>/
      converted/minilm-F16-<key>.gguf        a model of the catalogue, converted here
      converted/minilm-F16-<key>.gguf.json   its receipt: size, time of change, sha256
      checked/<key>.json                     receipts of files in the hub's cache
      work/…                                 half-made files; a final rename makes them count

Downloads from the hub stay in the hub's cache (``HF_HOME``), where other tools find them too.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import platformdirs
from huggingface_hub import constants

from embellama.errors import ConfigurationError, DownloadError, ModelNotFoundError
from embellama.files import replacing, sha256_of
from embellama.gguf_header import printable
from embellama.hub.catalog import find
from embellama.logs import log

CACHE_VARIABLE = "EMBELLAMA_CACHE_PATH"
HUB_CACHE_VARIABLE = "HF_HOME"

STALE_WORK_S = 24 * 3600.0
"""Half-made files older than this belong to a process that was killed."""

_GGUF_MAGIC = b"GGUF"

StoredKind: TypeAlias = Literal["converted", "hub", "set_aside", "unfinished"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that takes room on the disk.

    Attributes:
        path: Where it is.
        name: What to load or remove it by, where it has a name.
        kind: Converted here; downloaded into the hub's cache; found corrupt and set aside; or left
            behind by a process that was killed.
        size_bytes: Its size.
        modified: When it was last written, in UTC.
    """

    path: Path
    name: str
    kind: StoredKind
    size_bytes: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was true of a file when its content was last checked."""

    name: str
    origin: str
    size_bytes: int
    mtime_ns: int
    sha256: str


def cache_directory(cache_path: Path | None = None) -> Path:
    """Say where converted models are kept; the directory may not exist yet.

    Raises:
        ConfigurationError: It is no path, or begins with a user without a home directory.
    """
    if cache_path is None and (value := os.environ.get(CACHE_VARIABLE, "").strip()):
        cache_path = Path(value)
    if cache_path is None:
        cache_path = platformdirs.user_cache_path("embellama", appauthor=False)
    return _full_path(Path(cache_path), CACHE_VARIABLE)


def hub_cache_directory() -> Path:
    """Say where huggingface-hub keeps its downloads, by the environment as it is now."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable, "").strip():
            return _full_path(Path(os.path.expandvars(value)), variable)
    if value := os.environ.get(HUB_CACHE_VARIABLE, "").strip():
        return _full_path(Path(os.path.expandvars(value)), HUB_CACHE_VARIABLE) / "hub"
    return Path(constants.HF_HUB_CACHE)


def _full_path(path: Path, variable: str) -> Path:
    if "\0" in str(path):
        raise ConfigurationError(
            f"the cache directory {str(path)!r} has a NUL, which no path can have; leave it out"
        )
    try:
        return path.expanduser().absolute()
    except RuntimeError as exc:
        raise ConfigurationError(
            f"the cache directory {str(path)!r} begins with a user whose home directory is not "
            f"known; write it in full, there or in {variable}"
        ) from exc


@contextmanager
def storing_in(directory: Path, variable: str = CACHE_VARIABLE) -> Iterator[None]:
    """Turn the operating system's refusals into an error that names directory and setting.

    Raises:
        DownloadError: The disk is full, the directory is not writable, or is no directory.
    """
    try:
        yield
    except OSError as exc:
        reason = exc.strerror or str(exc) or type(exc).__name__
        raise DownloadError(
            f"cannot write below {str(directory)!r} ({reason}): make room or make it writable, "
            f"or set {variable} to a directory that is"
        ) from exc


def require_room(directory: Path, size_bytes: int, variable: str = CACHE_VARIABLE) -> None:
    """Check that a file of a size fits before a byte of it is fetched.

    Raises:
        DownloadError: The disk has less room than that.
    """
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    with storing_in(directory, variable):
        free = shutil.disk_usage(existing).free
    if free < size_bytes:
        raise DownloadError(
            f"{size_bytes / 1e6:.1f} MB are needed below {str(directory)!r} and "
            f"{free / 1e6:.1f} MB are free: make room, or set {variable} to a directory on another "
            "disk"
        )


def write_receipt(file: Path, receipt_path: Path, *, name: str, origin: str, sha256: str) -> None:
    """Write down a file's size, time of change and SHA-256, so that a load need not hash it."""
    stat = file.stat()
    receipt = Receipt(name, origin, stat.st_size, stat.st_mtime_ns, sha256)
    receipt_path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(receipt_path) as partial:
        partial.write_text(json.dumps(asdict(receipt)), encoding="utf-8")


def read_receipt(receipt_path: Path) -> Receipt | None:
    """Read a receipt; None where there is none, or none that makes sense."""
    try:
        return Receipt(**json.loads(receipt_path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        log.warning("embellama.store.receipt_refused", path=str(receipt_path), error=repr(exc))
        return None


def is_intact(file: Path, receipt_path: Path) -> bool:
    """Tell whether a file is still the one its receipt was written for.

    Costs two small reads; the content is hashed again only where the time of change differs.
    """
    receipt = read_receipt(receipt_path)
    try:
        stat = file.stat()
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError:
        return False
    if receipt is None or stat.st_size != receipt.size_bytes:
        return False
    if file.suffix == ".gguf" and magic != _GGUF_MAGIC:
        return False
    return stat.st_mtime_ns == receipt.mtime_ns or sha256_of(file) == receipt.sha256


def set_aside(file: Path) -> Path:
    """Rename a corrupt file, so that it is neither used nor lost without a trace."""
    aside = file.with_name(file.name + ".corrupt")
    os.replace(file, aside)
    log.warning("embellama.store.set_aside", path=str(file), now=str(aside))
    return aside


@contextmanager
def work_directory(cache: Path) -> Iterator[Path]:
    """Give a fresh directory for half-made files, removed at the end."""
    work = cache / "work"
    work.mkdir(parents=True, exist_ok=True)
    for old in work.iterdir():
        with suppress(FileNotFoundError):  # another process has just removed its own
            if time.time() - old.stat().st_mtime > STALE_WORK_S:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=work, ignore_cleanup_errors=True) as name:
        yield Path(name)


def list_stored(cache_path: Path | None = None) -> list[StoredFile]:
    """List the model files here and in the hub's cache, by name.

    Files that other processes remove meanwhile are left out.
    """
    cache = cache_directory(cache_path)
    stored = [*_list_own(cache), *_list_hub(hub_cache_directory())]
    return sorted(filter(None, stored), key=lambda file: (file.name, str(file.path)))


def _list_own(cache: Path) -> Iterator[StoredFile | None]:
    for path in cache.glob("converted/*.gguf"):
        receipt = read_receipt(path.with_name(path.name + ".json"))
        yield _stored(path, receipt.name if receipt else path.stem, "converted")
    for path in cache.glob("converted/*.gguf.corrupt"):
        yield _stored(path, path.name, "set_aside")
    for path in _files_below(cache / "work"):
        yield _stored(path, path.name, "unfinished")


def _files_below(directory: Path) -> Iterator[Path]:
    """List files at any depth; unlike ``glob`` it bears folders that go while it looks."""
    for folder, _, names in os.walk(directory):
        yield from (Path(folder, name) for name in names)


def _stored(path: Path, name: str, kind: StoredKind) -> StoredFile | None:
    """Describe a file; None if it has just been removed, or is a link to nothing."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    name = printable(name)
    return StoredFile(path, name, kind, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _list_hub(directory: Path) -> Iterator[StoredFile | None]:
    if not directory.is_dir():
        return
    for snapshots in directory.glob("models--*/snapshots"):
        repository = snapshots.parent.name.removeprefix("models--").replace("--", "/", 1)
        for path in _files_below(snapshots):
            commit, *inside = path.relative_to(snapshots).parts
            if inside and path.suffix == ".gguf":
                yield _stored(path, f"hf:{repository}@{commit[:12]}/{'/'.join(inside)}", "hub")


def remove_stored(
    name: str | None = None, *, cache_path: Path | None = None, hub: bool = False
) -> int:
    """Remove stored files.

    Args:
        name: A name as listed, a catalogue name (all its file types), or a file's name. None
            removes everything of ours.
        cache_path: The cache directory, where it is not the usual one.
        hub: With no name, remove the GGUFs in the hub's cache too, which other tools may share.

    Returns:
        Bytes freed.

    Raises:
        ModelNotFoundError: Nothing is stored under this name.
        DownloadError: A file cannot be removed.
    """
    cache = cache_directory(cache_path)
    stored = list_stored(cache)
    if name is None:
        chosen = [file for file in stored if hub or file.kind != "hub"]
    else:
        chosen = [file for file in stored if _is_called(file, name)]
        if not chosen:
            names = ", ".join(sorted({file.name for file in stored})) or "nothing"
            raise ModelNotFoundError(f"no stored model {name!r}; stored: {names}")
    freed = 0
    for file in chosen:
        directory = hub_cache_directory() if file.kind == "hub" else cache
        with storing_in(directory):
            freed += _remove(file, directory)
        log.info("embellama.store.removed", name=file.name, path=str(file.path))
    return freed


def _is_called(file: StoredFile, name: str) -> bool:
    if (entry := find(name)) is not None:
        name = entry.name
    if file.kind == "converted" and file.name.partition(":")[0].lower() == name.lower():
        return True
    return name.lower() in (file.name.lower(), file.path.name.lower()) or Path(name) == file.path


def _remove(file: StoredFile, directory: Path) -> int:
    """Remove a file below a directory, with its receipt and, in the hub's cache, its content."""
    content = file.path.resolve()
    for path in {file.path, content}:
        if not path.is_relative_to(directory) and not path.is_relative_to(directory.resolve()):
            return 0  # a link that leads out of the cache is not ours to follow
    file.path.unlink(missing_ok=True)
    file.path.with_name(file.path.name + ".json").unlink(missing_ok=True)
    if content != file.path and file.kind == "hub":
        links = _files_below(content.parent.parent / "snapshots")
        if any(link.resolve() == content for link in links):
            return 0  # another revision still has the same content
        content.unlink(missing_ok=True)
    return file.size_bytes

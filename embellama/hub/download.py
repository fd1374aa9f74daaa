"""Files of the Hugging Face hub, through huggingface-hub: whole, checked, or not at all.

The time-outs are short where the question is whether the hub can be reached, because
huggingface-hub asks again for minutes. A file counts only after its content has the digest that
the hub lists.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
from huggingface_hub import constants
from tqdm import tqdm

from embellama.errors import ConfigurationError, DownloadError, ModelNotFoundError
from embellama.files import sha256_of
from embellama.hub.hub_errors import hub_call, quiet_hub
from embellama.hub.store import (
    HUB_CACHE_VARIABLE,
    hub_cache_directory,
    is_intact,
    require_room,
    write_receipt,
)
from embellama.logs import log

CONNECT_TIMEOUT_S = 4.0
"""How long one attempt to reach the hub may take; ``HF_HUB_ETAG_TIMEOUT`` overrides it."""

DEFAULT_BRANCH = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub lists it.

    Attributes:
        name: Path inside the repository.
        size_bytes: Its size, where listed.
        digest: SHA-256 of a large file, git's SHA-1 of a small one, where listed.
    """

    name: str
    size_bytes: int | None
    digest: str | None


@dataclass(frozen=True, slots=True)
class HubListing:
    """The files of a repository at a commit."""

    repository: str
    revision: str
    commit: str
    files: tuple[HubFile, ...] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Paths inside the repository."""
        return [file.name for file in self.files]

    def find(self, name: str) -> HubFile:
        """Return a file by its path.

        Raises:
            ModelNotFoundError: It is not there; the message lists the GGUFs that are.
        """
        for file in self.files:
            if file.name == name:
                return file
        models = [name for name in self.names if name.lower().endswith(".gguf")]
        raise ModelNotFoundError(
            f"{name!r} is not in {self.repository} at {self.revision!r} on {hub_endpoint()}; "
            f"GGUF files there: {', '.join(models) or 'none'}"
        )


def hub_endpoint() -> str:
    """Return the hub's address: ``HF_ENDPOINT`` as it is now, or the public hub.

    Raises:
        ConfigurationError: ``HF_ENDPOINT`` is no http address.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or constants.ENDPOINT
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"HF_ENDPOINT = {endpoint!r} is not an address; write e.g. https://huggingface.co"
        )
    return str(endpoint)


def is_offline(offline: bool = False) -> bool:
    """Tell whether the network is off by the caller's switch or by ``HF_HUB_OFFLINE``."""
    variable = os.environ.get("HF_HUB_OFFLINE", "").strip().upper()
    return offline or variable in _TRUE or bool(constants.HF_HUB_OFFLINE)


def _timeout_s() -> float:
    if constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT:
        return float(constants.HF_HUB_ETAG_TIMEOUT)
    return CONNECT_TIMEOUT_S


def list_repository(repository: str, revision: str | None = None) -> HubListing:
    """Ask the hub which files a repository has.

    Blocks for at most about two connect time-outs. May be called from any thread.

    Raises:
        ModelNotFoundError: There is no such repository or revision.
        DownloadError: The hub cannot be reached, or refuses.
    """
    endpoint = hub_endpoint()
    revision = revision or DEFAULT_BRANCH
    timeout_s = _timeout_s()

    def ask() -> Any:
        api = huggingface_hub.HfApi(endpoint=endpoint)
        return api.model_info(repository, revision=revision, files_metadata=True, timeout=timeout_s)

    what = f"repository {repository} at {revision!r}"
    info = hub_call(ask, what=what, endpoint=endpoint, deadline_s=2 * timeout_s)
    files = tuple(
        HubFile(file.rfilename, file.size, file.lfs.sha256 if file.lfs else file.blob_id)
        for file in info.siblings or ()
    )
    return HubListing(repository, revision, info.sha, files)


def find_stored(repository: str, revision: str | None = None) -> dict[str, Path]:
    """Say which files of a repository are in the hub's cache, without the network.

    Returns:
        Their paths on this machine by their paths inside the repository.
    """
    revision = revision or DEFAULT_BRANCH
    folder = _repository_folder(repository)
    reference = folder / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / commit
    if not _COMMIT.fullmatch(commit) or not snapshot.is_dir():
        return {}
    return {
        path.relative_to(snapshot).as_posix(): path
        for path in snapshot.rglob("*")
        if path.is_file()
    }


def _repository_folder(repository: str) -> Path:
    return hub_cache_directory() / f"models--{repository.replace('/', '--')}"


def _partial_files(repository: str) -> list[Path]:
    return list(_repository_folder(repository).glob("blobs/*.incomplete"))


def fetch_file(listing: HubListing, name: str, *, cache: Path, progress_bar: bool = False) -> Path:
    """Bring a file into the hub's cache and check its content.

    A connection that breaks is taken up again where it broke. Blocks until the file is there.

    Args:
        listing: Where the file is.
        name: Its path inside the repository.
        cache: Our cache directory, where the check is written down.
        progress_bar: Show huggingface-hub's progress bar on stderr.

    Raises:
        ModelNotFoundError: It is not in the repository.
        DownloadError: It did not come whole, is not what the hub lists, or does not fit.
    """
    file = listing.find(name)
    stored = find_stored(listing.repository, listing.commit).get(name)
    if stored is not None and is_checked(stored, cache=cache, digest=file.digest):
        return stored
    require_room(hub_cache_directory(), file.size_bytes or 0, HUB_CACHE_VARIABLE)
    started = time.monotonic()
    try:
        path = _download(listing, name, progress_bar=progress_bar)
    except DownloadError as exc:
        # Versions of huggingface-hub that give up at the first break keep what came, and go on
        # from there; newer ones go on by themselves and keep nothing.
        if not exc.retryable or not _partial_files(listing.repository):
            raise
        path = _download(listing, name, progress_bar=progress_bar)
    if listing.commit not in path.parts:
        raise DownloadError(
            f"{listing.repository} changed while it was being fetched; fetch it again",
            retryable=True,
        )
    if not is_checked(path, cache=cache, digest=file.digest):
        raise DownloadError(
            f"{name!r} of {listing.repository} came from {hub_endpoint()} with other content than "
            f"the hub lists (digest {file.digest}); it was deleted. Fetch it again, without a "
            "proxy or mirror that changes files"
        )
    elapsed_s = round(time.monotonic() - started, 3)
    log.info("embellama.hub.fetched", repository=listing.repository, file=name, fetch_s=elapsed_s)
    return path


def fetch_files(
    listing: HubListing, names: Sequence[str], *, cache: Path, progress_bar: bool = False
) -> list[Path]:
    """Bring several files into the hub's cache; see `fetch_file`."""
    for name in names:
        listing.find(name)
    return [fetch_file(listing, name, cache=cache, progress_bar=progress_bar) for name in names]


def _download(listing: HubListing, name: str, *, progress_bar: bool) -> Path:
    endpoint = hub_endpoint()
    what = f"{name!r} of {listing.repository} at {listing.revision!r}"
    timeout_s = _timeout_s()
    options: dict[str, Any] = {}
    if not progress_bar and _takes_tqdm_class():
        options["tqdm_class"] = _NoBar

    def probe() -> None:
        # hf_hub_download asks a hub that answers 500 six times over; this asks once.
        url = huggingface_hub.hf_hub_url(
            listing.repository, name, revision=listing.revision, endpoint=endpoint
        )
        huggingface_hub.get_hf_file_metadata(url=url, timeout=timeout_s, endpoint=endpoint)

    def download() -> str:
        path: str = huggingface_hub.hf_hub_download(
            listing.repository,
            name,
            revision=listing.revision,
            cache_dir=hub_cache_directory(),
            endpoint=endpoint,
            etag_timeout=timeout_s,
            **options,
        )
        return path

    hub_call(probe, what=what, endpoint=endpoint, deadline_s=2 * timeout_s)
    with quiet_hub(progress_bar=progress_bar or bool(options)):
        return Path(hub_call(download, what=what, endpoint=endpoint))


class _NoBar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
    """A progress bar that is never drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.pop("name", None)
        super().__init__(*args, **{**kwargs, "disable": True})


def _takes_tqdm_class() -> bool:
    return "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters


def is_checked(path: Path, *, cache: Path, digest: str | None = None) -> bool:
    """Tell whether a file of the hub's cache has the content it should have.

    The first look at a file hashes it and writes that down; later ones compare size and time of
    change. A file with other content is deleted.

    Args:
        path: The file in the hub's cache.
        cache: Our cache directory, where receipts are.
        digest: What the hub lists. Unset: the name of the content's file, which is the digest.
    """
    key = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    receipt = cache / "checked" / f"{key}.json"
    if is_intact(path, receipt):
        return True
    content = path.resolve()
    digest = digest or (content.name if path.is_symlink() else None)
    if not _has_digest(content, digest) or not _is_sane(path):
        log.warning("embellama.hub.content_refused", path=str(path), digest=digest)
        path.unlink(missing_ok=True)
        content.unlink(missing_ok=True)
        return False
    try:
        write_receipt(path, receipt, name=path.name, origin="hub", sha256=sha256_of(content))
    except OSError as exc:  # a cache directory that cannot be written costs a hash at each load
        log.debug("embellama.hub.receipt_failed", path=str(receipt), error=repr(exc))
    return True


def _has_digest(content: Path, digest: str | None) -> bool:
    if digest is None:
        return True
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        return sha256_of(content) == digest
    if _COMMIT.fullmatch(digest):
        data = content.read_bytes()
        blob = b"blob %d\0" % len(data) + data
        return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == digest
    return True


def _is_sane(path: Path) -> bool:
    if path.suffix.lower() != ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"

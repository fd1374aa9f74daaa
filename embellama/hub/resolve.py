"""From what the user names to the path of a usable GGUF on this machine.

What is stored and intact is used without asking the network, so a model does not change under a
program that has run before, and starts without the hub. Remove it to fetch it anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from embellama.errors import DownloadError, ModelNotFoundError
from embellama.gguf_header import printable
from embellama.hub.catalog import CatalogEntry, find
from embellama.hub.download import (
    fetch_files,
    find_stored,
    hub_endpoint,
    is_checked,
    is_offline,
    list_repository,
)
from embellama.hub.prepare import Job, Progress, prepare_converted
from embellama.hub.reference import (
    CatalogReference,
    FileReference,
    HubReference,
    Reference,
    choose_file,
    parse_reference,
    plain_stem,
    split_parts,
)
from embellama.hub.store import cache_directory


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model that can be loaded.

    Attributes:
        path: The GGUF, the first part of a split one.
        name: What to call it unless told otherwise.
        entry: Its row of the catalogue, where it has one.
        file_type: The file type that was asked for, where one was.
    """

    path: Path
    name: str
    entry: CatalogEntry | None = None
    file_type: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All parts, in order."""
        return tuple(self.path.with_name(name) for name in split_parts(self.path.name))

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(path.stat().st_size for path in self.paths)


def resolve_model(
    reference: str | Path | Reference,
    *,
    cache_path: Path | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    progress_bar: bool = False,
) -> ResolvedModel:
    """Find, and where needed fetch and convert, the GGUF that a reference means.

    May be called from any thread and from several processes at once. Blocks until the file is
    there; an unreachable hub costs seconds.

    Args:
        reference: What the user named, or that taken apart.
        cache_path: The cache directory, where it is not the usual one.
        offline: Use only what is stored.
        progress: Called with one short line for each step.
        progress_bar: Draw bars on stderr while bytes are fetched.

    Raises:
        InvalidInputError: The reference is malformed.
        ModelNotFoundError: There is no such model, repository, revision or file.
        DownloadError: It could not be fetched or stored.
        ConversionError: Its weights cannot become a GGUF of this type.
    """
    parsed = parse_reference(reference) if isinstance(reference, str | Path) else reference
    job = Job(cache_directory(cache_path), is_offline(offline), progress_bar, progress)
    if isinstance(parsed, FileReference):
        try:
            return _resolve_file(parsed.path)
        except OSError as exc:
            raise ModelNotFoundError(
                f"{str(parsed.path)!r} cannot be read ({exc.strerror or exc}); check the path and "
                "its rights"
            ) from exc
    if isinstance(parsed, HubReference):
        return _resolve_hub(job, parsed)
    return _resolve_row(job, parsed)


def _resolve_file(path: Path) -> ResolvedModel:
    if path.is_dir():
        inside = ", ".join(sorted(printable(file.name) for file in path.glob("*.gguf"))[:8])
        hint = f"name one of its files: {inside}" if inside else "convert it: `embellama convert`"
        raise ModelNotFoundError(f"{str(path)!r} is a directory, not a GGUF; {hint}")
    parts = [path.with_name(name) for name in split_parts(path.name)]
    missing = [printable(part.name) for part in parts if not part.is_file()]
    if missing and len(parts) > 1:
        raise ModelNotFoundError(
            f"{str(path)!r} is one of {len(parts)} parts, of which {', '.join(missing)} "
            f"are not in {str(path.parent)!r}; put all parts into one directory"
        )
    if missing:
        raise ModelNotFoundError(f"no file {str(path)!r} (in {os.getcwd()!r}){_hub_hint(path)}")
    return ResolvedModel(parts[0], plain_stem(path.name))


def _hub_hint(path: Path) -> str:
    text = path.as_posix()
    if text.count("/") == 1 and not text.startswith((".", "/")) and path.suffix != ".gguf":
        return f"; for a repository of the hub write hf:{printable(text)}"
    return ""


def _resolve_hub(job: Job, wanted: HubReference) -> ResolvedModel:
    def choose(names: list[str]) -> str | None:
        if wanted.file is not None:
            return split_parts(wanted.file)[0]
        return choose_file(names, wanted.file_type, where=wanted.repository)

    path = _hub_model(job, wanted.repository, wanted.revision, choose)
    # a row of the catalogue knows the prompts of what its own repository publishes
    return ResolvedModel(path, plain_stem(path.name), find(wanted.repository), wanted.file_type)


def _hub_model(
    job: Job, repository: str, revision: str | None, choose: Callable[[list[str]], str | None]
) -> Path:
    """Return a model file of a repository, from the hub's cache or the hub."""
    stored = find_stored(repository, revision)
    if (path := _intact_choice(job, stored, choose)) is not None:
        return path
    if job.offline:
        models = ", ".join(name for name in stored if name.lower().endswith(".gguf")) or "nothing"
        raise DownloadError(
            f"the model asked for of {repository} is not stored ({models} is), and the network is "
            "switched off (offline, or HF_HUB_OFFLINE); fetch it once with `embellama pull`"
        )
    job.say(f"looking for {repository} on {hub_endpoint()}")
    listing = list_repository(repository, revision)
    name = choose(listing.names)
    if name is None:
        raise ModelNotFoundError(
            f"{repository} has none of the expected files; there are: {', '.join(listing.names)}"
        )
    parts = split_parts(name)
    size = sum(listing.find(part).size_bytes or 0 for part in parts)
    job.say(f"fetching {name} ({size / 1e6:.1f} MB)")
    return fetch_files(listing, parts, cache=job.cache, progress_bar=job.progress_bar)[0]


def _intact_choice(
    job: Job, stored: dict[str, Path], choose: Callable[[list[str]], str | None]
) -> Path | None:
    if not stored:
        return None
    try:
        name = choose(list(stored))
    except ModelNotFoundError:
        return None
    parts = split_parts(name) if name is not None else ()
    if not parts or any(part not in stored for part in parts):
        return None
    if not all(is_checked(stored[part], cache=job.cache) for part in parts):
        job.say(f"{name} in the hub's cache was corrupt and is fetched again")
        return None
    return stored[parts[0]]


def _resolve_row(job: Job, wanted: CatalogReference) -> ResolvedModel:
    entry, file_type = wanted.entry, wanted.file_type
    ready_made = entry.gguf_repository is not None and (
        not entry.convertible or file_type in entry.gguf_file_types
    )
    if ready_made and entry.gguf_repository is not None:
        path = _hub_model(job, entry.gguf_repository, entry.gguf_revision, _row_choice(wanted))
    elif entry.convertible:
        path = prepare_converted(job, entry, file_type)
    else:
        way_out = entry.note or "find a repository with one and load it as hf:owner/repo:QUANT"
        raise ModelNotFoundError(
            f"the catalogue knows no GGUF of {entry.name!r} and its weights cannot be converted "
            f"here; {way_out}"
        )
    return ResolvedModel(path, entry.name, entry, file_type)


def _row_choice(wanted: CatalogReference) -> Callable[[list[str]], str | None]:
    """Prefer the catalogue's pattern, in any case; else choose by the type in the files' names."""
    pattern = (wanted.entry.gguf_file(wanted.file_type) or "").lower()

    def choose(names: list[str]) -> str | None:
        exact = [name for name in names if name.lower() == pattern]
        where = wanted.entry.gguf_repository or wanted.entry.name
        return exact[0] if exact else choose_file(names, wanted.file_type, where=where)

    return choose

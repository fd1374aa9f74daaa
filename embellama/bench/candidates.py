"""The file types of a model: found, fetched, or made for the time of the comparison."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from embellama.errors import (
    ConversionError,
    DownloadError,
    InvalidInputError,
    ModelError,
    ModelNotFoundError,
)
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.quantize import quantize_file
from embellama.hub.reference import (
    FILE_TYPES,
    CatalogReference,
    HubReference,
    known_file_type,
    parse_reference,
)
from embellama.hub.resolve import resolve_model
from embellama.memory_estimate import ModelShape, shape_of

ALL_TYPES = ("F32", "BF16", "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
"""What ``all`` stands for: the full ones, and of each number of bits the one most often used."""

_FULL = ("F32", "F16", "BF16")
"""Types to quantize from, the best first."""

Report: TypeAlias = Callable[[str, int, int], None]
"""Told what is being done, how many steps of it are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file of some type.

    Attributes:
        file_type: The type.
        reference: How the user gets it: a reference, or a file and the command that makes it.
        model: What an engine loads.
        tensor_types: How many tensors really have which type.
        file_bytes: Size of the file.
        shape: The widths that its memory depends on.
    """

    file_type: str
    reference: str
    model: str | Path
    tensor_types: Mapping[str, int]
    file_bytes: int
    shape: ModelShape


@dataclass(frozen=True, slots=True)
class Source:
    """Where files may come from and go to.

    Attributes:
        folder: For what is made only for the comparison.
        cache_path: The cache directory, where it is not the usual one.
        offline: Use only what is stored.
    """

    folder: Path
    cache_path: Path | None = None
    offline: bool = False


def parse_types(text: str) -> tuple[str, ...]:
    """Read a list of file types, parted by commas; ``all`` stands for `ALL_TYPES`.

    Raises:
        InvalidInputError: One is unknown, or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InvalidInputError(f"no file type given; write all, or some of {','.join(ALL_TYPES)}")
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(ALL_TYPES if name.lower() == "all" else [known_file_type(name)]))
    return tuple(found)


def by_precision(file_types: Sequence[str]) -> list[str]:
    """Order file types from the most precise to the least."""
    return sorted(file_types, key=FILE_TYPES.index)


def make_candidates(
    model: str | Path, file_types: Sequence[str], source: Source, report: Report
) -> tuple[list[Candidate], dict[str, str]]:
    """Bring a model's file types here, as far as they can be had.

    Types of a catalogue model are stored in the cache. Those of a file, and those a repository
    does not publish, are quantized into the source's folder.

    Args:
        model: Anything `EmbeddingEngine.load_model` takes.
        file_types: Which types.
        source: Where files may come from and go to.
        report: Told of each type.

    Returns:
        What there is, the most precise first, and why the others are not there.

    Raises:
        InvalidInputError: The model's name is malformed.
        ModelNotFoundError: There is no such model.
        GGUFFormatError: The file named is no sound GGUF.
    """
    wanted = by_precision(file_types)
    reference = parse_reference(model)
    made: list[Candidate] = []
    failed: dict[str, str] = {}
    base: Path | None = None
    of_named: dict[str, CatalogReference | HubReference] = {}
    if isinstance(reference, CatalogReference):
        of_named = {name: CatalogReference(reference.entry, name) for name in wanted}
    elif isinstance(reference, HubReference) and reference.file is None:
        of_named = {name: replace(reference, file_type=name) for name in wanted}
    else:
        resolved = resolve_model(reference, cache_path=source.cache_path, offline=source.offline)
        base = resolved.path
    for done, file_type in enumerate(wanted):
        report(f"making {file_type}", done, len(wanted))
        try:
            if base is None:
                made.append(_fetched(of_named[file_type], file_type, source, report))
            else:
                made.append(_of_file(model, base, file_type, source.folder))
        except (ConversionError, DownloadError, ModelNotFoundError) as exc:
            failed[file_type] = str(exc)
    if base is None:
        _quantize_missing(made, failed, source)
    return sorted(made, key=lambda one: FILE_TYPES.index(one.file_type)), failed


def _fetched(
    reference: CatalogReference | HubReference, file_type: str, source: Source, report: Report
) -> Candidate:
    resolved = resolve_model(
        reference,
        cache_path=source.cache_path,
        offline=source.offline,
        progress=lambda step: report(step, 0, 0),
    )
    name = (
        f"{reference.entry.name}:{file_type}"
        if isinstance(reference, CatalogReference)
        else str(reference)
    )
    return _described(file_type, name, name, read_metadata(resolved.path))


def _of_file(model: str | Path, base: Path, file_type: str, folder: Path) -> Candidate:
    metadata = read_metadata(base)
    if metadata.file_type == file_type:
        return _described(file_type, str(model), model, metadata)
    return _quantized(base, file_type, folder)


def _quantized(base: Path, file_type: str, folder: Path) -> Candidate:
    target = folder / f"{base.stem}-{file_type}.gguf"
    quantize_file(base, target, file_type)
    command = shlex.join(["embellama", "quantize", str(base), target.name, file_type])
    return _described(file_type, f"{target.name}, made by {command}", target, read_metadata(target))


def _quantize_missing(made: list[Candidate], failed: dict[str, str], source: Source) -> None:
    """Quantize what could not be fetched from the most precise file that could."""
    full = [one for one in made if one.file_type in _FULL]
    if not full:
        return
    best = min(full, key=lambda one: _FULL.index(one.file_type))
    base = resolve_model(best.model, cache_path=source.cache_path, offline=True).path
    for file_type, reason in list(failed.items()):
        try:
            made.append(_quantized(base, file_type, source.folder))
        except ModelError as exc:
            failed[file_type] = f"{reason}; and from {best.file_type}: {exc}"
        else:
            del failed[file_type]


def _described(
    file_type: str, reference: str, model: str | Path, metadata: GGUFMetadata
) -> Candidate:
    return Candidate(
        file_type,
        reference,
        model,
        dict(metadata.tensor_types),
        metadata.size_bytes,
        shape_of(metadata),
    )

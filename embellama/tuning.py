"""What `embellama tune` found out about a model on this machine, kept in a small file.

A file is found by a key made of the CPU, the builds of the backends and the model's content: what
was measured says nothing about others. Reading is all that happens when a model is loaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from embellama._native.binding import build_name, library_path
from embellama._native.support import wanted_isa
from embellama.config import MAX_CONTEXTS, MAX_THREADS, ModelConfig
from embellama.cpu import describe_cpu
from embellama.errors import ConfigurationError
from embellama.files import read_small, replacing
from embellama.identity import digest_parts
from embellama.logs import log
from embellama.types import Layout, Layouts

Work: TypeAlias = Literal["short", "long", "single"]
FlashAttn: TypeAlias = bool | Literal["auto"]

WORKS: tuple[Work, ...] = ("short", "long", "single")
"""The kinds of work that get a layout each; the fields of `Layouts`."""

MAX_BATCH_TOKENS = 1 << 16
"""Largest micro-batch that a file may ask for; far more than pays, far less than fills a memory."""

FOLDER = "tuning"
"""Of the cache directory, where tunings are kept."""

_FORMAT = "embellama tuning 1"
_MAX_FILE_BYTES = 1 << 16
_FILE_TYPE = re.compile(r"[A-Z0-9_]{2,20}")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a layout gains over the default one, as it was measured.

    Attributes:
        default_texts_per_s: Texts a second with the defaults.
        best_texts_per_s: With what was chosen.
        gain: The second over the first, as the median over rounds that measured both.
    """

    default_texts_per_s: float
    best_texts_per_s: float
    gain: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings that were found the fastest.

    Attributes:
        layouts: How the cores are shared out.
        flash_attn: Fused attention; anything but ``"auto"`` only where the user allowed it.
        file_type: The type to load in place of the one that was named; None where the user did
            not allow others, or none was faster.
        device: Where the model ran; its layouts are of no use on another.
        measured: What was gained, by work.
        created: When, in ISO 8601 with the zone.
    """

    layouts: Layouts
    flash_attn: FlashAttn
    file_type: str | None
    device: str
    measured: Mapping[Work, Measured]
    created: str


def default_layouts(n_cores: int, max_batch_tokens: int) -> Layouts:
    """Share out cores as it is done where nothing was measured.

    Many texts get contexts of one thread, which need not wait for each other; one text gets all.
    """
    many = Layout(min(n_cores, MAX_CONTEXTS), 1, max_batch_tokens)
    return Layouts(many, many, Layout(1, min(n_cores, MAX_THREADS), max_batch_tokens))


def build_for(build: str, config: ModelConfig) -> str:
    """Name the builds that a configuration may run on, for `tuning_key`.

    Layouts for llama.cpp are of no use to the native kernels, nor the other way round. Where the
    settings allow those and they were compiled, they are part of the name.

    Args:
        build: `Backend.build`.
        config: The model's settings.
    """
    if config.backend == "llama" or library_path() is None:
        return build
    only = f", {isa} alone" if (isa := wanted_isa()) else ""
    return f"{build}; {build_name()}, compute type {config.compute_type}{only}"


def tuning_key(cpu: str, build: str, *content: str) -> str:
    """Return what a tuning is found by, 32 hexadecimal digits.

    Args:
        cpu: As `describe_cpu` gives it.
        build: As `build_for` gives it.
        content: SHA-256 of each part of the model file, in order.
    """
    return digest_parts(("embellama tuning", cpu, build, *content))


def tuning_path(folder: Path, key: str) -> Path:
    """Say where the tuning of a key is kept."""
    return folder / f"{key}.json"


def stored_tuning(
    folder: Path, *, n_cores: int, build: str, content: Sequence[str]
) -> Tuning | None:
    """Return what was found for a model on this machine, None where nothing was.

    Args:
        folder: Where tunings are kept.
        n_cores: Physical cores this process may use.
        build: As `build_for` gives it.
        content: SHA-256 of each part of the model file, in order.
    """
    return read_tuning(folder, tuning_key(describe_cpu(n_cores), build, *content))


def read_tuning(folder: Path, key: str) -> Tuning | None:
    """Read a tuning; None where there is none, or none that makes sense, which is logged."""
    path = tuning_path(folder, key)
    try:
        return _tuning_of(json.loads(read_small(path, _MAX_FILE_BYTES)), key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("embellama.tuning.refused", path=str(path), error=repr(exc))
        return None


def write_tuning(folder: Path, key: str, tuning: Tuning) -> Path:
    """Keep a tuning, in place of an older one of its key; return the file.

    Raises:
        ConfigurationError: It has values that reading it would refuse.
        OSError: The folder cannot be written.
    """
    document = {"format": _FORMAT, "key": key, **asdict(tuning)}
    try:
        _tuning_of(document, key)
    except ValueError as exc:
        raise ConfigurationError(f"this tuning cannot be kept: {exc}") from exc
    folder.mkdir(parents=True, exist_ok=True)
    path = tuning_path(folder, key)
    with replacing(path) as partial:
        partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    log.info("embellama.tuning.stored", path=str(path))
    return path


def _tuning_of(document: object, key: str) -> Tuning:
    fields = _fields(
        document,
        "the file",
        {"format", "key", "layouts", "flash_attn", "file_type", "device", "measured", "created"},
    )
    if fields["format"] != _FORMAT or fields["key"] != key:
        raise ValueError(f"it is {fields['format']!r} of {fields['key']!r}")
    flash_attn, file_type = fields["flash_attn"], fields["file_type"]
    if not isinstance(flash_attn, bool) and flash_attn != "auto":
        raise ValueError(f"flash_attn is {flash_attn!r}")
    if file_type is not None and not _FILE_TYPE.fullmatch(_text(file_type, "file_type")):
        raise ValueError(f"file_type is {file_type!r}")
    created = _text(fields["created"], "created")
    if datetime.fromisoformat(created).tzinfo is None:
        raise ValueError(f"created is {created!r}, without a zone")
    layouts = _fields(fields["layouts"], "layouts", set(WORKS))
    measured = _fields(fields["measured"], "measured", set(WORKS))
    return Tuning(
        layouts=Layouts(**{work: _layout_of(layouts[work], work) for work in WORKS}),
        flash_attn=flash_attn,
        file_type=file_type,
        device=_text(fields["device"], "device"),
        measured={work: _measured_of(measured[work], work) for work in WORKS},
        created=created,
    )


_LAYOUT_LIMITS = {
    "n_contexts": MAX_CONTEXTS,
    "n_threads": MAX_THREADS,
    "max_batch_tokens": MAX_BATCH_TOKENS,
}


def _layout_of(value: object, work: str) -> Layout:
    fields = _fields(value, work, set(_LAYOUT_LIMITS))
    for name, limit in _LAYOUT_LIMITS.items():
        number = fields[name]
        if type(number) is not int or not 1 <= number <= limit:  # True is an int too
            raise ValueError(f"{name} of {work} is {number!r}, not 1 to {limit}")
    return Layout(**fields)


def _measured_of(value: object, work: str) -> Measured:
    names = {"default_texts_per_s", "best_texts_per_s", "gain"}
    fields = _fields(value, f"measured {work}", names)
    for name in names:
        number = fields[name]
        is_number = type(number) is float or type(number) is int
        if not is_number or not math.isfinite(number) or number <= 0:
            raise ValueError(f"{name} of {work} is {number!r}, not a positive number")
    return Measured(**{name: float(fields[name]) for name in names})


def _fields(value: object, what: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise ValueError(f"{what} has not exactly {', '.join(sorted(names))}")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ValueError(f"{what} is {value!r:.80}")
    return value

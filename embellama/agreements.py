"""Which native kernels agreed with llama.cpp on which model, kept in small files.

A comparison costs more than the rest of a load, and its outcome depends on nothing but the model's
content, the two builds and the CPU. Only agreement is kept: what differed is compared again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from embellama._native.binding import Kernel, build_name
from embellama._parallel import available_cores
from embellama.cpu import describe_cpu
from embellama.files import read_small, replacing
from embellama.identity import digest_parts, file_state
from embellama.logs import log
from embellama.types import PoolingType

FOLDER = "agreements"
"""Of the cache directory, where they are kept."""

_FORMAT = "embellama agreement 1"
_FIELDS = {"format", "key", "model", "kernel", "cosine"}
_MAX_FILE_BYTES = 1 << 14


def agreement_key(
    kernel: Kernel,
    library: Path,
    llama_build: str,
    pooling_type: PoolingType,
    content: Sequence[str],
) -> str:
    """Return what an agreement is found by, 32 hexadecimal digits.

    Args:
        kernel: What computed.
        library: The compiled kernels; they may be compiled anew under the same version.
        llama_build: What they were held against, as `LlamaBackend.build` names it.
        pooling_type: How token rows became one vector.
        content: SHA-256 of each part of the model file, in order.

    Raises:
        OSError: The library is no longer there.
    """
    return digest_parts(
        (
            "embellama agreement",
            describe_cpu(available_cores(physical=True)),
            build_name(),
            file_state(library),
            str(kernel),
            llama_build,
            pooling_type,
            *content,
        )
    )


def is_remembered(folder: Path, key: str, least: float) -> bool:
    """Tell whether an agreement is kept. A file that makes no sense counts as none and is logged.

    Args:
        folder: Where agreements are kept.
        key: As `agreement_key` gives it.
        least: The cosine to which it has to have agreed.
    """
    path = _path(folder, key)
    try:
        cosine = _check(json.loads(read_small(path, _MAX_FILE_BYTES)), key)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError) as exc:
        log.warning("embellama.agreement.refused", path=str(path), error=repr(exc))
        return False
    return cosine >= least


def remember(folder: Path, key: str, *, model: str, kernel: Kernel, cosine: float) -> None:
    """Keep an agreement. Where the folder cannot be written, the next load compares again.

    Args:
        folder: Where agreements are kept; made when it is first needed.
        key: As `agreement_key` gives it.
        model: The model's name, for people who look into the file.
        kernel: What computed, for the same.
        cosine: Of the probe text that agreed least.
    """
    document = {
        "format": _FORMAT,
        "key": key,
        "model": model,
        "kernel": str(kernel),
        "cosine": cosine,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(_path(folder, key)) as partial:
            partial.write_text(json.dumps(document, indent=1), encoding="utf-8")
    except OSError as exc:  # only time is lost
        log.info("embellama.agreement.forgotten", folder=str(folder), error=repr(exc))


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.json"


def _check(document: object, key: str) -> float:
    """Return the cosine of a document; raise ValueError if it is not an agreement of this key."""
    if not isinstance(document, dict) or document.keys() != _FIELDS:
        raise ValueError(f"it has not exactly {', '.join(sorted(_FIELDS))}")
    if document["format"] != _FORMAT or document["key"] != key:
        raise ValueError(f"it is {document['format']!r:.80} of {document['key']!r:.80}")
    cosine = document["cosine"]
    if type(cosine) is not float or not math.isfinite(cosine):
        raise ValueError(f"cosine is {cosine!r:.80}")
    return cosine

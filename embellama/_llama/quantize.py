"""llama.cpp's own quantizer."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from embellama._llama.binding import LogLines, lib, run_once

_UNSUPPORTED_PREFIXES = ("GUESSED",)


def quantizable_types() -> dict[str, int]:
    """Return llama.cpp's file types by name, e.g. ``{"F32": 0, "F16": 1, "Q4_K_M": 15}``."""
    types: dict[str, int] = {}
    for name, value in vars(lib).items():
        plain = name.removeprefix("LLAMA_FTYPE_").removeprefix("ALL_").removeprefix("MOSTLY_")
        if name.startswith("LLAMA_FTYPE_") and not plain.startswith(_UNSUPPORTED_PREFIXES):
            types[plain] = int(value)
    return types


def run_quantize(
    source: Path, target: Path, file_type: int, *, n_threads: int, requantize: bool
) -> tuple[str, ...]:
    """Run ``llama_model_quantize``; the GIL is free meanwhile.

    Returns:
        Empty if it went well, else the last lines llama.cpp wrote.
    """
    run_once()
    params: Any = lib.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = n_threads
    params.allow_requantize = requantize
    with LogLines() as lines:
        status = lib.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(params)
        )
    return () if status == 0 else lines.relevant() or (f"llama_model_quantize returned {status}",)

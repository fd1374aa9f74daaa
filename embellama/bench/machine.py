"""What figures were measured on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version

import psutil

from embellama._llama.devices import cpu_features, gpu_names
from embellama._native.binding import Kernel, open_library
from embellama._parallel import available_cores
from embellama.cpu import cpu_name
from embellama.errors import ConfigurationError

_NO_SETS = frozenset({"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE"})
"""What llama.cpp lists among a CPU's features and is none."""


def describe_machine() -> dict[str, str]:
    """Return CPU, cores, instruction sets in use, memory, system and versions, by name."""
    sets = [name for name, on in cpu_features().items() if on and name not in _NO_SETS]
    return {
        "CPU": cpu_name(),
        "cores": f"{available_cores(physical=True)} physical, {available_cores()} logical",
        "instruction sets": " ".join(sets),
        "native kernels": native_kernels(),
        "GPU": ", ".join(gpu_names()) or "none",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "embellama": version("embellama"),
        "llama-cpp-python": version("llama-cpp-python"),
    }


def native_kernels() -> str:
    """Say which native kernels this CPU can run, or why there are none."""
    try:
        library = open_library()
    except ConfigurationError:
        return "not usable (`embellama doctor` says why)"
    return "not compiled" if library is None else describe_kernels(library.kernels)


def describe_kernels(kernels: Sequence[Kernel]) -> str:
    """Name instruction sets with what they multiply: ``"avx512 (bf16, f32), avx2 (f32)"``.

    The scalar ones are left out: they are what the others are tested against, and run no model.
    """
    kinds: dict[str, list[str]] = {}
    for kernel in kernels:
        if kernel.isa != "scalar":
            kinds.setdefault(kernel.isa, []).append(kernel.compute_type)
    named = [f"{isa} ({', '.join(types)})" for isa, types in kinds.items()]
    return ", ".join(named) or "none for this CPU"

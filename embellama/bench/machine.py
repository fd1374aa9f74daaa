"""What figures were measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import psutil

from embellama._llama.devices import cpu_features, gpu_names
from embellama._parallel import available_cores
from embellama.cpu import cpu_name

_NO_SETS = frozenset({"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE"})
"""What llama.cpp lists among a CPU's features and is none."""


def describe_machine() -> dict[str, str]:
    """Return CPU, cores, instruction sets in use, memory, system and versions, by name."""
    sets = [name for name, on in cpu_features().items() if on and name not in _NO_SETS]
    return {
        "CPU": cpu_name(),
        "cores": f"{available_cores(physical=True)} physical, {available_cores()} logical",
        "instruction sets": " ".join(sets),
        "GPU": ", ".join(gpu_names()) or "none",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "embellama": version("embellama"),
        "llama-cpp-python": version("llama-cpp-python"),
    }

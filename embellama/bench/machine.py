"""What figures were measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from embellama._llama.devices import cpu_features, gpu_names
from embellama._parallel import available_cores

_NO_SETS = frozenset({"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE"})
"""What llama.cpp lists among a CPU's features and is none."""


def describe_machine() -> dict[str, str]:
    """Return CPU, cores, instruction sets in use, memory, system and versions, by name."""
    sets = [name for name, on in cpu_features().items() if on and name not in _NO_SETS]
    return {
        "CPU": _cpu_name(),
        "cores": f"{available_cores(physical=True)} physical, {available_cores()} logical",
        "instruction sets": " ".join(sets),
        "GPU": ", ".join(gpu_names()) or "none",
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "embellama": version("embellama"),
        "llama-cpp-python": version("llama-cpp-python"),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # another operating system
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()

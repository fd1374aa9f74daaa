"""What a figure was measured on."""

from __future__ import annotations

from importlib.metadata import version

import psutil

from embellama._llama.devices import cpu_features
from embellama.bench.machine import native_kernels
from embellama.cpu import cpu_name


def describe_machine() -> str:
    """Return one line: CPU, cores, load, instruction sets, versions."""
    sets = [
        name
        for name, on in cpu_features().items()
        if on and name.startswith(("AVX", "NEON", "AMX", "SVE"))
    ]
    return (
        f"{cpu_name()}, {psutil.cpu_count(logical=False)} cores, load {psutil.getloadavg()[0]:.1f}, "
        f"{' '.join(sets)}; llama-cpp-python {version('llama-cpp-python')}; "
        f"native kernels: {native_kernels()}"
    )

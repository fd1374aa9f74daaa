"""What a figure was measured on."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import psutil

from embellama._llama.devices import cpu_features


def describe_machine() -> str:
    """Return one line: CPU, cores, load, instruction sets, versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].partition(":")[2].strip() if lines else cpu
    sets = [
        name
        for name, on in cpu_features().items()
        if on and name.startswith(("AVX", "NEON", "AMX", "SVE"))
    ]
    return (
        f"{cpu}, {psutil.cpu_count(logical=False)} cores, load {psutil.getloadavg()[0]:.1f}, "
        f"{' '.join(sets)}; llama-cpp-python {version('llama-cpp-python')}"
    )

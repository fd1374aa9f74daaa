"""What this machine's CPU is, and what it can do in llama.cpp's words."""

from __future__ import annotations

import functools
import itertools
import platform
import re
import subprocess
from collections.abc import Iterable

from embellama.logs import log

_LINUX_FLAGS = {
    "pni": "SSE3",
    "ssse3": "SSSE3",
    "avx": "AVX",
    "avx_vnni": "AVX_VNNI",
    "avx2": "AVX2",
    "f16c": "F16C",
    "fma": "FMA",
    "bmi2": "BMI2",
    "avx512f": "AVX512",
    "avx512vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
    "asimd": "NEON",
    "asimdhp": "FP16_VA",
    "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
    "sme": "SME",
}
"""Source: arch/{x86,arm64}/kernel/cpu* of Linux; ggml_backend_cpu_get_features in ggml-cpu.cpp."""

_MAC_X86_FLAGS = {
    "SSE3": "SSE3",
    "SSSE3": "SSSE3",
    "AVX1.0": "AVX",
    "AVX2": "AVX2",
    "F16C": "F16C",
    "FMA": "FMA",
    "BMI2": "BMI2",
    "AVX512F": "AVX512",
    "AVX512VBMI": "AVX512_VBMI",
    "AVX512VNNI": "AVX512_VNNI",
}
_MAC_ARM_KEYS = {
    "hw.optional.AdvSIMD": "NEON",
    "hw.optional.arm.FEAT_FP16": "FP16_VA",
    "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_I8MM": "MATMUL_INT8",
    "hw.optional.arm.FEAT_SME": "SME",
}
"""Source: Apple, "Determining instruction set characteristics"."""

ESSENTIAL = frozenset({"SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "NEON", "DOTPROD"})
"""A build without one of these that the CPU has is several times slower; the others help less."""


def machine_features() -> frozenset[str]:
    """Return what the CPU has of the features llama.cpp can be built for.

    Empty where the operating system does not tell.
    """
    system = platform.system()
    if system == "Linux":
        return features_of_cpuinfo(_cpuinfo())
    if system == "Darwin":
        return _mac_features()
    return frozenset()


def features_of_cpuinfo(text: str) -> frozenset[str]:
    """Read the features out of the text of ``/proc/cpuinfo``; those of its first core."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(_LINUX_FLAGS[flag] for flag in value.split() if flag in _LINUX_FLAGS)
    return frozenset()


def cpu_name() -> str:
    """Return what the CPU is called, or what kind it is."""
    name, _ = cpu_of(_cpuinfo())
    return (
        name
        or _sysctl(["machdep.cpu.brand_string"])
        or platform.processor()
        or platform.machine()
        or "unknown CPU"
    )


@functools.cache
def describe_cpu(n_cores: int) -> str:
    """Name this machine's CPU, with the cores this process may use and its instruction sets."""
    _, flags = cpu_of(_cpuinfo())
    return f"{cpu_name()}, {n_cores} cores, {' '.join(flags) or platform.machine()}"


_SPEED_FLAGS = re.compile(
    r"(ssse3|sse4_\w+|avx\w*|fma|f16c|bmi2|amx\w*|asimd\w*|bf16|i8mm|sve\w*|sme(2|_\w+)?|rvv)"
)
"""Instruction sets that matter to matrix products, in Linux's spelling.

The others change with kernels and hypervisors and would only make a tuning be forgotten.
"""


def cpu_of(cpuinfo: str) -> tuple[str, tuple[str, ...]]:
    """Read name and instruction sets of the first core out of the text of ``/proc/cpuinfo``.

    Arm's text has no name but numbers of designer and part, which serve as well.
    """
    core: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        core.setdefault(key.strip(), value.strip())
    numbers = [core[key] for key in ("CPU implementer", "CPU part", "CPU variant") if key in core]
    name = core.get("model name") or " ".join(numbers)
    flags = core.get("flags", core.get("Features", "")).split()
    return name, tuple(sorted(flag for flag in flags if _SPEED_FLAGS.fullmatch(flag)))


def _cpuinfo() -> str:
    """Return what the kernel says about the first core; a long text for machines of many."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return "".join(itertools.takewhile(str.strip, file))
    except OSError:  # another operating system, or a sandbox
        return ""


def _mac_features() -> frozenset[str]:
    if platform.machine() == "arm64":
        return frozenset(name for key, name in _MAC_ARM_KEYS.items() if _sysctl([key]) == "1")
    flags = _sysctl(["machdep.cpu.features", "machdep.cpu.leaf7_features"]).split()
    return frozenset(_MAC_X86_FLAGS[flag] for flag in flags if flag in _MAC_X86_FLAGS)


def _sysctl(keys: Iterable[str]) -> str:
    if platform.system() != "Darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", *keys]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as exc:
        log.debug("embellama.cpu.unnamed", error=repr(exc))
        return ""
    return done.stdout.strip()

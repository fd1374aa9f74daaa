"""What this machine's CPU can do, in llama.cpp's words, to hold against what a build uses."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

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
        return features_of_cpuinfo(_read(Path("/proc/cpuinfo")))
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
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return _sysctl(["machdep.cpu.brand_string"]) or platform.processor() or platform.machine()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
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
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    return answer.stdout.strip()

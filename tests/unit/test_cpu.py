import platform
import subprocess
import sys

import pytest

from embellama import cpu
from embellama.cpu import cpu_name, cpu_of, describe_cpu, features_of_cpuinfo, machine_features

X86 = """\
processor	: 0
model name	: AMD EPYC
flags		: fpu pni ssse3 fma f16c avx avx2 bmi2 avx512f avx512_bf16 unheard_of

processor	: 1
flags		: fpu
"""
ARM = """\
processor	: 0
Features	: fp asimd asimdhp asimddp i8mm
"""


def test_x86_flags_become_llama_cpps_names():
    assert features_of_cpuinfo(X86) == {
        *("SSE3", "SSSE3", "FMA", "F16C", "AVX", "AVX2", "BMI2", "AVX512", "AVX512_BF16")
    }


def test_arm_features_become_llama_cpps_names():
    assert features_of_cpuinfo(ARM) == {"NEON", "FP16_VA", "DOTPROD", "MATMUL_INT8"}


def test_an_unknown_cpu_has_no_known_features():
    assert features_of_cpuinfo("hart : 0\nisa : rv64imafdc\n") == frozenset()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc/cpuinfo")
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="needs an x86-64 or ARM64 CPU"
)
def test_this_machine_tells_its_features_and_name():
    assert machine_features() & {"SSE3", "NEON"}
    assert cpu_name()


AMD_EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu sse sse2 avx avx2 f16c smep avx512f avx512_bf16 amx_tile
bugs\t\t: spectre_v1
"""
ARM_SERVER = """processor\t: 0
Features\t: fp asimd asimddp i8mm bf16 sve crc32
CPU implementer\t: 0x41
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


def test_a_cpu_is_told_by_name_and_the_instruction_sets_that_matter():
    assert cpu_of(AMD_EPYC) == (
        "AMD EPYC",
        ("amx_tile", "avx", "avx2", "avx512_bf16", "avx512f", "f16c"),
    )
    assert cpu_of(ARM_SERVER) == ("0x41 0xd40 0x1", ("asimd", "asimddp", "bf16", "i8mm", "sve"))
    assert cpu_of("") == ("", ())


def test_this_cpu_is_told_with_its_cores():
    described = describe_cpu(3)
    assert ", 3 cores, " in described
    assert describe_cpu(2) != described


def test_where_proc_is_not_there_the_platform_tells(monkeypatch):
    monkeypatch.setattr(cpu, "_cpuinfo", lambda: "")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert describe_cpu.__wrapped__(4) == "arm, 4 cores, arm64"


def test_on_a_mac_sysctl_tells(monkeypatch):
    def run(command, **options):
        assert command[-1] == "machdep.cpu.brand_string"
        return subprocess.CompletedProcess(command, 0, stdout="Apple M4\n")

    monkeypatch.setattr(cpu, "_cpuinfo", lambda: "")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(subprocess, "run", run)
    assert describe_cpu.__wrapped__(4) == "Apple M4, 4 cores, arm64"

    def missing(command, **options):
        raise FileNotFoundError(command[0])

    monkeypatch.setattr(subprocess, "run", missing)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert describe_cpu.__wrapped__(4) == "arm, 4 cores, arm64"

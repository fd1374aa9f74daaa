import platform
import sys

import pytest

from embellama.cli.cpu import cpu_name, features_of_cpuinfo, machine_features

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

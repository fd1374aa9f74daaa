"""Kernels compiled for this CPU and for 64-bit Arm, each held against the scalar ones."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SOAK

SOURCE = Path(__file__).parents[3] / "native"
LIBRARIES = Path("/usr/aarch64-linux-gnu")
ARM_COMPILER = "aarch64-linux-gnu-g++"
ARM_PACKAGES = "Debian: g++-aarch64-linux-gnu and qemu-user"
ARM_OPTIONS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_CXX_COMPILER={ARM_COMPILER}",
)

pytestmark = [pytest.mark.soak, pytest.mark.timeout(400)]
"""Both forms compile everything; the long one as it is installed."""

SCALAR = ("scalar f32", "scalar bf16", "scalar int8")


def needed(program, why):
    """Return where a program is, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program} {why}")
    return found


def compiled(folder, *options):
    """Build ``compare_kernels``; in the short form with less optimisation, which takes half."""
    cmake = needed("cmake", "to compile the kernels")
    level = () if SOAK else ("-DCMAKE_CXX_FLAGS_RELEASE=-O1",)
    for command in (
        [cmake, "-S", SOURCE, "-B", folder, "-DEMBELLAMA_TESTS=ON", *level, *options],
        [cmake, "--build", folder, "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "compare_kernels"


def kernels_that_agree(*command):
    """Run the program; return the kernels that it held against the scalar ones, all it found."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert done.stdout.endswith("\n0 of the comparisons failed\n")
    kernels = re.findall(r"^kernel (.+), \d+ lanes$", done.stdout, flags=re.MULTILINE)
    for kernel in kernels:
        for what in (
            "against scalar: .*",
            r"\d+ tokens together and alone",
            "by 1 thread and by 3",
            "pooled: .*",
        ):
            assert re.search(f"^{kernel} on .*{what}: ok$", done.stdout, flags=re.MULTILINE)
    return tuple(kernels)


@pytest.fixture(scope="module")
def arm_program(tmp_path_factory):
    needed(ARM_COMPILER, f"to compile for another CPU ({ARM_PACKAGES})")
    return compiled(tmp_path_factory.mktemp("arm"), *ARM_OPTIONS)


@pytest.mark.parametrize(
    ("cpu", "kernels"),
    [
        ("max", ("neon bf16", "neon f32", *SCALAR)),
        ("cortex-a72", ("neon f32", *SCALAR)),
    ],
)
def test_arm_kernels_agree_with_the_scalar_ones(request, cpu, kernels):
    emulator = needed("qemu-aarch64", f"to run what is compiled for Arm ({ARM_PACKAGES})")
    program = request.getfixturevalue("arm_program")
    assert kernels_that_agree(emulator, "-cpu", cpu, "-L", LIBRARIES, program) == kernels


def test_kernels_of_this_cpu_agree_with_the_scalar_ones(tmp_path):
    needed("c++", "to compile the kernels")
    assert kernels_that_agree(compiled(tmp_path))[-3:] == SCALAR

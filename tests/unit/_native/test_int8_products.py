"""Products of bytes against plain loops: of this CPU's instructions, of none, and on emulated Arm.

A program of its own, without a model; see native/tests/int8_products.cpp.
"""

import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.unit._native.test_cross_compiled import (
    ARM_COMPILER,
    ARM_OPTIONS,
    ARM_PACKAGES,
    LIBRARIES,
    SOURCE,
    needed,
)

pytestmark = pytest.mark.timeout(200)

LACKING = 2
"""The status of a program whose instructions the CPU has not."""

ON_X86 = platform.machine() in ("x86_64", "AMD64")
CASES = ("plain", "shifted")


def compiled(folder: Path, program: str, *options: str) -> Path:
    cmake = needed("cmake", "to compile the products")
    for command in (
        [cmake, "-S", str(SOURCE / "tests"), "-B", str(folder), *options],
        [cmake, "--build", str(folder), "--target", program],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / program


def products_that_hold(*command: object) -> set[str]:
    """Run a program; return the instruction sets that it found right, which is all it has."""
    parts = [str(part) for part in command]
    done = subprocess.run(parts, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == LACKING:
        pytest.skip(f"needs a CPU with the instructions of {Path(parts[-1]).name}: {done.stdout}")
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == "0 of the comparisons failed"
    assert all(line.endswith(": ok") for line in lines)
    found = {
        match[1]
        for line in lines
        if (match := re.match(r"(.+) plain products of \d+ values, any scales, 0 differ", line))
    }
    for isa in found:
        for case in CASES:
            for what in ("sums of 127 times -128", "quantized row:", "rows with nan become NaN"):
                assert any(line.startswith(f"{isa} {case} {what}") for line in lines), (isa, what)
    return found


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("int8_products", {"scalar"}),
        ("int8_products_avx512", {"scalar", "avx512_vnni", "avx512_vnni of 256 bits"}),
        ("int8_products_avx2", {"scalar", "avx_vnni"}),
    ],
)
def test_products_are_those_of_plain_loops(tmp_path, program, found):
    needed("c++", "to compile the products")
    if program != "int8_products" and not ON_X86:
        pytest.skip(f"needs an x86 CPU: {program} is made of its instructions")
    assert products_that_hold(compiled(tmp_path, program)) == found


def test_products_without_vectors_hold_on_arm(tmp_path):
    needed(ARM_COMPILER, f"to compile for another CPU ({ARM_PACKAGES})")
    emulator = needed("qemu-aarch64", f"to run what is compiled for Arm ({ARM_PACKAGES})")
    program = compiled(tmp_path, "int8_products", *ARM_OPTIONS)
    assert products_that_hold(emulator, "-L", LIBRARIES, program) == {"scalar"}

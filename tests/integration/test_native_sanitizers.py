"""The native kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

Programs of their own, without Python, compiled here together with the kernels; see native/tests.
The short form compiles without optimisation and only what it runs.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SOAK

SOURCES = Path(__file__).parents[2] / "native" / "tests"
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
TIMEOUT_S = 1700
FINDINGS = ("Sanitizer", "runtime error", "FAILED")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def build(folder: Path, sanitizers: str, *programs: str) -> Path:
    """Compile programs of native/tests with the kernels; skip, naming it, without what it takes."""
    if shutil.which("cmake") is None:
        pytest.skip("needs cmake: it compiles the kernels with sanitizers")
    if COMPILER is None:
        pytest.skip("needs a C++ compiler: c++, g++ or clang++")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    linked = run(COMPILER, f"-fsanitize={sanitizers}", probe, "-o", folder / "probe")
    tried = linked if linked.returncode != 0 else run(folder / "probe")
    if tried.returncode != 0:
        pytest.skip(f"needs the compiler's runtime for -fsanitize={sanitizers}: {tried.stderr}")
    configured = run(
        *("cmake", "-S", SOURCES, "-B", folder / "build", f"-DCMAKE_CXX_COMPILER={COMPILER}"),
        *(f"-DSANITIZE={sanitizers}", f"-DOPTIMIZE={'-O1' if SOAK else '-O0'}"),
    )
    assert configured.returncode == 0, configured.stderr
    built = run(
        *("cmake", "--build", folder / "build", "--parallel", "2", "--target", *programs),
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "build"


def output_of(program: Path, *arguments: int) -> str:
    done = run(program, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    # what a sanitizer says of an allocation that it refused is no finding
    told = re.sub(r".*WARNING: AddressSanitizer failed to allocate.*\n", "", done.stderr)
    assert not any(word in told for word in FINDINGS), told
    return done.stdout


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    programs = (
        *("fuzz_model", "allocations", "int8_products"),
        *(("compare_kernels",) if SOAK else ()),
    )
    return build(tmp_path_factory.mktemp("address"), "address,undefined", *programs)


def test_a_sanitizer_ends_a_program_that_reads_too_far(checked):
    # so that silence is a result
    source = checked / "beyond.cpp"
    source.write_text(
        "#include <cstdlib>\n"
        "int main(int n, char**) {\n"
        "    char* bytes = static_cast<char*>(std::malloc(3));\n"
        "    return bytes[n + 2] == 'x';\n"
        "}\n"
    )
    assert COMPILER is not None
    built = run(COMPILER, "-fsanitize=address,undefined", source, "-o", checked / "beyond")
    assert built.returncode == 0, built.stderr
    done = run(checked / "beyond")
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


@pytest.mark.parametrize("seed", range(1, 9) if SOAK else (1,))
def test_made_up_models_and_batches(checked, seed):
    told = output_of(checked / "fuzz_model", 20_000 if SOAK else 1_000, seed)
    found = re.search(r"(\d+) models taken, (\d+) refused; (\d+) batches taken, (\d+)", told)
    assert found is not None, told
    assert all(int(count) >= 100 for count in found.groups()), told


def test_an_allocation_that_fails_is_an_error_and_loses_nothing(checked):
    lines = output_of(checked / "allocations").splitlines()
    assert any(line.startswith("scalar int8: ") for line in lines), lines
    for line in lines:
        of_model, of_context, _ = map(int, re.findall(r"(\d+) (?:allocations|of a)", line)[:3])
        assert of_model > 20, line
        assert of_context > 5, line


def test_products_of_bytes_read_and_write_nothing_else(checked):
    assert output_of(checked / "int8_products").endswith("\n0 of the comparisons failed\n")


@pytest.mark.skipif(not SOAK, reason="needs minutes: EMBELLAMA_SOAK=1")
def test_kernels_agree_under_the_sanitizers(checked):
    assert "scalar" in output_of(checked / "compare_kernels")


def test_threads_that_share_a_model(tmp_path):
    folder = build(tmp_path, "thread", "threads")
    rounds, n_threads = (2_000, 8) if SOAK else (20, 4)
    lines = output_of(folder / "threads", rounds, n_threads).splitlines()
    assert any(line.startswith("scalar int8: ") for line in lines), lines
    for line in lines:
        assert f"{rounds * n_threads} batches of {n_threads} threads" in line

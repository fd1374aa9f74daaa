import pytest

from embellama._llama.devices import Device
from embellama.cli.machine_check import check_cpu, check_devices, check_threads

CPU = Device("CPU", "a CPU", "cpu", 1, 2_000_000_000)
GPU = Device("CUDA0", "a GPU", "gpu", 1, 8_000_000_000)


def levels(findings):
    return [finding.level for finding in findings]


@pytest.mark.parametrize(
    ("build", "machine", "level", "words"),
    [
        ({"AVX2": True, "FMA": True}, {"AVX2", "FMA"}, "ok", "uses all"),
        ({"AVX2": True}, {"AVX2", "AVX512"}, "note", "does not use AVX512. Faster"),
        ({"AVX": True}, {"AVX", "AVX2"}, "FAIL", "does not use AVX2. Several times faster"),
        ({"AVX2": False}, {"AVX2"}, "FAIL", "GGML_NATIVE=on"),
        ({"NEON": True}, set(), "note", "does not tell"),
    ],
)
def test_a_build_is_held_against_the_cpu(build, machine, level, words):
    (finding,) = check_cpu(build, machine)
    assert finding.level == level
    assert words in finding.text


def test_a_gpu_that_is_used_is_listed():
    findings = list(check_devices([CPU, GPU], {"a GPU": "-DX=on"}))
    assert levels(findings) == ["ok", "ok"]
    assert "CUDA0 (gpu): a GPU, 8.00 GB" in findings[1].text


def test_a_gpu_that_the_build_cannot_use_is_told_with_the_way_out():
    findings = list(check_devices([CPU], {"an NVIDIA GPU": "-DGGML_CUDA=on"}))
    assert levels(findings) == ["ok", "note"]
    assert "there is an NVIDIA GPU" in findings[1].text
    assert "-DGGML_CUDA=on" in findings[1].text


def test_no_gpu_at_all_is_fine():
    assert levels(check_devices([CPU], {})) == ["ok", "ok"]


@pytest.mark.parametrize(("wanted", "level"), [(None, "ok"), (4, "ok"), (8, "note"), (1, "note")])
def test_threads_are_held_against_the_cores(wanted, level):
    assert levels(check_threads(wanted, 4)) == [level]

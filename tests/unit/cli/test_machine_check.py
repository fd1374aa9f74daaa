import pytest

from embellama._llama.devices import Device
from embellama.cli.gpu import MachineGPU
from embellama.cli.machine_check import check_cpu, check_devices, check_threads

CPU = Device("CPU", "a CPU", "cpu", 1, 2_000_000_000)
GPU = Device("CUDA0", "a GPU", "gpu", 1, 8_000_000_000)
SECOND = Device("CUDA1", "another", "gpu", 1, 8_000_000_000)
NVIDIA = MachineGPU("NVIDIA X1", "CUDA", "-DGGML_CUDA=on")
RENDERER = MachineGPU("a GPU", "Vulkan", "-DGGML_VULKAN=on")


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
    findings = list(check_devices([CPU, GPU], [NVIDIA], ["CUDA", "CPU"]))
    assert levels(findings) == ["ok", "ok"]
    assert "CUDA0 (gpu): a GPU, 8.00 GB memory" in findings[1].text
    assert "main_gpu" not in findings[1].text


def test_several_gpus_are_numbered_as_main_gpu_counts_them():
    findings = list(check_devices([GPU, SECOND, CPU], []))
    assert [finding.text[-10:] for finding in findings[:2]] == ["main_gpu 0", "main_gpu 1"]
    assert "main_gpu" not in findings[2].text


def test_a_gpu_that_the_build_cannot_use_is_told_with_the_way_out():
    findings = list(check_devices([CPU], [NVIDIA, RENDERER], ["CPU"]))
    assert levels(findings) == ["ok", "note"]
    assert "there is NVIDIA X1 and 1 more, and this build cannot use it" in findings[1].text
    assert "-DGGML_CUDA=on" in findings[1].text


def test_a_build_for_a_gpu_that_finds_none_points_to_the_driver():
    findings = list(check_devices([CPU], [NVIDIA], ["CUDA", "CPU"]))
    assert levels(findings) == ["ok", "note"]
    assert "the build has CUDA but finds no GPU: look at the driver" in findings[1].text


def test_no_gpu_at_all_is_fine():
    assert levels(check_devices([CPU], [])) == ["ok", "ok"]


@pytest.mark.parametrize(("wanted", "level"), [(None, "ok"), (4, "ok"), (8, "note"), (1, "note")])
def test_threads_are_held_against_the_cores(wanted, level):
    assert levels(check_threads(wanted, 4)) == [level]

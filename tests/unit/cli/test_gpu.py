"""A file system as drivers leave it, with and without a GPU."""

import platform

import pytest

from embellama.cli.gpu import machine_gpus


@pytest.fixture
def linux(monkeypatch, tmp_path):
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    return tmp_path


def leave(root, path, text=""):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_machine_without_a_gpu(linux):
    assert machine_gpus(linux) == []


def test_nvidia_gpus_are_named_by_their_driver(linux):
    for number, name in enumerate(["NVIDIA X1", "NVIDIA X2"]):
        path = f"proc/driver/nvidia/gpus/0000:0{number}:00.0/information"
        leave(linux, path, f"Model: \t\t {name}\nIRQ:   \t\t 11\n")
    leave(linux, "proc/driver/nvidia/version")
    found = machine_gpus(linux)
    assert [gpu.what for gpu in found] == ["NVIDIA X1", "NVIDIA X2"]
    assert {(gpu.backend, gpu.switch) for gpu in found} == {("CUDA", "-DGGML_CUDA=on")}


@pytest.mark.parametrize(
    ("path", "what", "switch"),
    [
        ("proc/driver/nvidia/version", "an NVIDIA GPU", "-DGGML_CUDA=on"),
        ("dev/nvidiactl", "an NVIDIA GPU", "-DGGML_CUDA=on"),
        ("dev/kfd", "an AMD GPU", "-DGGML_HIP=on"),
        ("dev/dri/renderD129", "a GPU", "-DGGML_VULKAN=on"),
    ],
)
def test_traces_of_drivers(linux, path, what, switch):
    leave(linux, path)
    (gpu,) = machine_gpus(linux)
    assert (gpu.what, gpu.switch) == (what, switch)


def test_one_gpu_is_counted_once_by_its_makers_own_way(linux):
    leave(linux, "dev/dri/renderD128")
    leave(linux, "dev/kfd")
    assert [gpu.backend for gpu in machine_gpus(linux)] == ["ROCm"]


@pytest.mark.parametrize(("processor", "backends"), [("arm64", ["MTL"]), ("x86_64", [])])
def test_macs(monkeypatch, processor, backends):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: processor)
    assert [gpu.backend for gpu in machine_gpus()] == backends


def test_only_the_tool_of_the_driver_is_there(monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr("embellama.cli.gpu.shutil.which", lambda name: f"C:/{name}.exe")
    assert [gpu.backend for gpu in machine_gpus()] == ["CUDA"]

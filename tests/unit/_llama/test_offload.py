"""Scripted GPUs: what is asked of them is refused, or said to llama.cpp, before it could abort."""

import ctypes
from dataclasses import replace

import pytest

from embellama._llama import model as model_module
from embellama._llama import offload as offload_module
from embellama._llama.binding import LogLines, lib
from embellama._llama.devices import Device, backend_names, gpus_among, list_devices
from embellama._llama.model import LlamaBackend, devices_used, offloaded_layers
from embellama._llama.offload import plan_offload
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, ModelLoadError
from embellama.gguf import read_metadata
from tests.tiny_gguf import write_gguf

CPU = Device("CPU", "a CPU", "cpu", 1, 2)
FIRST = Device("CUDA0", "a GPU", "gpu", 1, 2, handle=11)
SECOND = Device("CUDA1", "another GPU", "gpu", 1, 2, handle=22)
BUILT_IN = Device("Vulkan0", "a built-in GPU", "igpu", 1, 2, handle=33)
WITH_ROWS = [replace(gpu, splits_rows=True) for gpu in (FIRST, SECOND)]


# ── which GPUs count ────────────────────────────────────────────────────────────────────────


def test_built_in_gpus_count_only_where_there_is_no_other():
    assert gpus_among([CPU, BUILT_IN, FIRST, SECOND]) == [FIRST, SECOND]
    assert gpus_among([CPU, BUILT_IN]) == [BUILT_IN]
    assert gpus_among([CPU]) == []


def test_devices_of_this_build_have_handles_and_backends():
    assert all(device.handle for device in list_devices())
    assert "CPU" in backend_names()


# ── asked for and absent ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"use_gpu": True}, "use_gpu = True, but this build of llama.cpp sees no GPU; "),
        ({"n_gpu_layers": 3}, "n_gpu_layers = 3, but"),
        ({"main_gpu": 0}, "main_gpu = 0, but"),
        ({"split_mode": "none"}, "split_mode = 'none', but"),
        ({"use_gpu": True, "n_gpu_layers": 3}, "use_gpu = True, but"),
        ({"use_gpu": "auto", "n_gpu_layers": 3}, "leave n_gpu_layers unset"),
    ],
)
def test_a_gpu_asked_for_and_absent_is_an_error(asked, said, monkeypatch):
    monkeypatch.setattr(offload_module, "backend_names", lambda: ["BLAS", "CPU"])
    with pytest.raises(ConfigurationError) as caught:
        plan_offload(ModelConfig(**asked), [])
    assert said in str(caught.value)
    assert "embellama doctor" in str(caught.value)


def test_a_wish_from_the_environment_is_named_with_its_variable(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_USE_GPU", "true")
    with pytest.raises(ConfigurationError, match=r"use_gpu = True \(from environment: EMBELLAMA_"):
        plan_offload(ModelConfig(), [])


def test_a_wish_from_the_file_is_one_too(monkeypatch, tmp_path):
    path = tmp_path / "embellama.toml"
    path.write_text("[model]\nmain_gpu = 1\n", encoding="utf-8")
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    with pytest.raises(ConfigurationError, match=r"main_gpu = 1 \(from file: "):
        plan_offload(ModelConfig(), [])


def test_a_build_for_gpus_that_finds_none_points_to_the_driver(monkeypatch):
    monkeypatch.setattr(offload_module, "backend_names", lambda: ["CUDA", "CPU"])
    with pytest.raises(ConfigurationError, match="built for CUDA: look at the driver"):
        plan_offload(ModelConfig(use_gpu=True), [])


@pytest.mark.parametrize("asked", [{}, {"use_gpu": "auto"}, {"use_gpu": False}])
def test_mere_absence_is_quiet(asked):
    plan = plan_offload(ModelConfig(**asked), [])
    assert (plan.n_gpu_layers, plan.devices) == (0, ())


# ── what is there and cannot be used so ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        ([FIRST], r"main_gpu = 2, .* sees 1 GPU \(0: CUDA0 \(a GPU\)\); set main_gpu to 0$"),
        ([FIRST, SECOND], r"sees 2 GPUs \(0: .*, 1: CUDA1 .*\); set main_gpu to 0 to 1$"),
    ],
)
def test_a_gpu_beyond_those_there(gpus, said):
    with pytest.raises(ConfigurationError, match=said):
        plan_offload(ModelConfig(main_gpu=2), gpus)


@pytest.mark.parametrize("split_mode", ["layer", "row"])
def test_one_gpu_and_all_of_them_contradict_each_other(split_mode):
    with pytest.raises(ConfigurationError, match="drop one of the two"):
        plan_offload(ModelConfig(main_gpu=0, split_mode=split_mode), WITH_ROWS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"use_gpu": False, "main_gpu": 0}, "main_gpu = 0 needs a GPU, but use_gpu = False; "),
        ({"use_gpu": False, "split_mode": "row"}, "split_mode = 'row' needs a GPU, but use_gpu"),
        ({"n_gpu_layers": 0, "main_gpu": 1}, "main_gpu = 1 needs a GPU, but n_gpu_layers = 0; "),
    ],
)
@pytest.mark.parametrize("gpus", [[], WITH_ROWS])
def test_a_wish_and_its_opposite_contradict_each_other(asked, said, gpus):
    with pytest.raises(ConfigurationError, match=said):
        plan_offload(ModelConfig(**asked), gpus)


def test_rows_where_llama_cpp_cannot_split_them():
    with pytest.raises(ConfigurationError, match="cannot do on CUDA1; set it to 'layer'"):
        plan_offload(ModelConfig(split_mode="row"), [WITH_ROWS[0], SECOND])


# ── what llama.cpp is told ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("asked", "n_gpu_layers", "split_mode", "devices"),
    [
        ({}, -1, None, None),
        ({"use_gpu": True}, -1, None, None),
        ({"n_gpu_layers": 2}, 2, None, None),
        ({"split_mode": "layer"}, -1, 1, None),
        ({"split_mode": "row"}, -1, 2, None),
        ({"split_mode": "none"}, -1, 0, (WITH_ROWS[0],)),
        ({"main_gpu": 1}, -1, 0, (WITH_ROWS[1],)),
        ({"main_gpu": 1, "split_mode": "none", "n_gpu_layers": 2}, 2, 0, (WITH_ROWS[1],)),
        ({"use_gpu": False}, 0, None, ()),
        ({"n_gpu_layers": 0}, 0, None, ()),
    ],
)
def test_settings_become_a_plan(asked, n_gpu_layers, split_mode, devices):
    plan = plan_offload(ModelConfig(**asked), WITH_ROWS)
    assert (plan.n_gpu_layers, plan.split_mode) == (n_gpu_layers, split_mode)
    assert plan.devices == devices


@pytest.mark.parametrize(("main_gpu", "handles"), [(0, [11]), (1, [22])])
def test_llama_cpp_gets_a_list_of_the_one_gpu_that_is_meant(main_gpu, handles):
    params = lib.llama_model_default_params()
    kept = plan_offload(ModelConfig(main_gpu=main_gpu), [FIRST, SECOND]).apply(params)
    assert (params.n_gpu_layers, params.split_mode, params.main_gpu) == (-1, 0, 0)
    assert params.devices == ctypes.addressof(kept)
    assert list(kept) == [*handles, None]


def test_llama_cpp_takes_what_it_sees_where_nothing_is_chosen():
    params = lib.llama_model_default_params()
    mode = params.split_mode
    assert plan_offload(ModelConfig(), [FIRST, SECOND]).apply(params) is None
    assert (params.n_gpu_layers, params.split_mode, params.devices) == (-1, mode, None)


# ── loading ─────────────────────────────────────────────────────────────────────────────────


def test_a_load_refuses_before_llama_cpp_reads_the_file(tiny_path, monkeypatch):
    monkeypatch.setattr(model_module, "list_devices", lambda: [CPU, FIRST])
    monkeypatch.setattr(lib, "llama_model_load_from_file", None)
    with pytest.raises(ConfigurationError, match="main_gpu = 1"):
        LlamaBackend().load(read_metadata(tiny_path), ModelConfig(main_gpu=1), "mean")


def test_a_load_hands_the_chosen_device_to_llama_cpp(tiny_path, monkeypatch):
    """The CPU stands in for a GPU: llama.cpp names each device that it was given."""
    (cpu, *_) = [device for device in list_devices() if device.kind == "cpu"]
    monkeypatch.setattr(model_module, "list_devices", lambda: [replace(cpu, kind="gpu")])
    taken = []
    monkeypatch.setattr(
        model_module,
        "offloaded_layers",
        lambda lines: taken.extend(devices_used(lines)) or (2, 3),
    )
    model = LlamaBackend().load(read_metadata(tiny_path), ModelConfig(main_gpu=0), "mean")
    assert taken == [cpu.label]
    assert (model.info.device, model.info.n_layers_offloaded) == (cpu.label, 2)
    assert model.info.n_layers == 3
    model.close()


def test_without_a_gpu_a_model_says_so(tiny_path):
    model = LlamaBackend().load(read_metadata(tiny_path), ModelConfig(use_gpu=False), "mean")
    assert (model.info.device, model.info.n_layers_offloaded) == ("CPU", 0)
    assert model.info.n_layers > 1
    model.close()


def test_a_failed_load_on_a_gpu_thinks_of_its_memory(tmp_path, monkeypatch):
    (cpu, *_) = [device for device in list_devices() if device.kind == "cpu"]
    monkeypatch.setattr(model_module, "list_devices", lambda: [replace(cpu, kind="gpu")])
    metadata = read_metadata(write_gguf(tmp_path / "lacking.gguf"))
    with pytest.raises(ModelLoadError, match="lower n_gpu_layers"):
        LlamaBackend().load(metadata, ModelConfig(main_gpu=0), "mean")
    with pytest.raises(ModelLoadError) as caught:
        LlamaBackend().load(metadata, ModelConfig(use_gpu=False), "mean")
    assert "n_gpu_layers" not in str(caught.value)


def test_layers_and_devices_are_read_off_the_log():
    lines = LogLines()
    assert (offloaded_layers(lines), devices_used(lines)) == ((0, None), [])
    lines.lines.extend(
        [
            "prepare: using device CUDA0 (NVIDIA H200) (0000:c1:00.0) - 9 MiB free",
            "prepare: using device MTL0 (Apple M2 (8)) (unknown id) - 10 MiB free",
            "load_tensors: offloaded 5/7 layers to GPU",
        ]
    )
    assert offloaded_layers(lines) == (5, 7)
    assert devices_used(lines) == ["CUDA0 (NVIDIA H200)", "MTL0 (Apple M2 (8))"]

"""What of a model goes to which GPU: the settings, held against the GPUs that are there."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embellama._llama.devices import Device, backend_names
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError

_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
"""Source: ``enum llama_split_mode`` in llama.h."""

_ALL_LAYERS = -1

_NO_GPU = ("CPU", "BLAS")
"""Backends that compute on the CPU."""

_ASKS_FOR_A_GPU = ("n_gpu_layers", "main_gpu", "split_mode")
"""Settings that mean nothing without one. Their defaults are None: a value is a wish."""


@dataclass(frozen=True, slots=True)
class Offload:
    """What llama.cpp is told about GPUs.

    Attributes:
        n_gpu_layers: Layers to put there; -1 for all.
        split_mode: As llama.cpp counts it; None leaves it to llama.cpp.
        devices: The only ones to use; None lets llama.cpp take each GPU that it sees.
    """

    n_gpu_layers: int
    split_mode: int | None = None
    devices: tuple[Device, ...] | None = None

    def apply(self, params: Any) -> Any:
        """Fill a llama_model_params.

        Returns:
            What has to live until the model is loaded: the list of devices that llama.cpp reads.
        """
        params.n_gpu_layers = self.n_gpu_layers
        if self.split_mode is not None:
            params.split_mode = self.split_mode
        params.main_gpu = 0  # of ``devices``, where one of them is chosen
        if self.devices is None:
            return None
        handles = [device.handle for device in self.devices]
        ended = (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
        params.devices = ctypes.addressof(ended)
        return ended


def plan_offload(config: ModelConfig, gpus: Sequence[Device]) -> Offload:
    """Decide what goes to the GPU.

    Args:
        config: The settings.
        gpus: What this build can use, in the order in which ``main_gpu`` counts them.

    Raises:
        ConfigurationError: A GPU is asked for and not there, or cannot do what is asked.
    """
    if config.use_gpu is False or config.n_gpu_layers == 0:
        return Offload(n_gpu_layers=0, devices=())
    if not gpus:
        _refuse_if_asked_for(config)
        return Offload(n_gpu_layers=0, devices=())
    _check_main_gpu(config, gpus)
    _check_rows(config, gpus)
    n_layers = _ALL_LAYERS if config.n_gpu_layers is None else config.n_gpu_layers
    # llama.cpp reads its main_gpu in mode "none" alone, and there counts without the GPUs that two
    # of its backends see: a list of the one GPU that is meant cannot be misread
    if config.split_mode == "none" or (config.split_mode is None and config.main_gpu is not None):
        return Offload(n_layers, _SPLIT_MODES["none"], (gpus[config.main_gpu or 0],))
    if config.split_mode is None:
        return Offload(n_layers)
    return Offload(n_layers, _SPLIT_MODES[config.split_mode])


def _refuse_if_asked_for(config: ModelConfig) -> None:
    if config.use_gpu is True:
        name: str | None = "use_gpu"
    else:
        name = next((name for name in _ASKS_FOR_A_GPU if getattr(config, name) is not None), None)
    if name is None:
        return
    origin = config.sources[name]
    where = "" if origin == "explicit" else f" (from {origin})"
    others = [name for name in backend_names() if name not in _NO_GPU]
    way_out = (
        f"it was built for {', '.join(others)}: look at the driver, and at variables that hide "
        "GPUs (CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, GGML_VK_VISIBLE_DEVICES)"
        if others
        else "install llama-cpp-python built for yours (CUDA, Metal, Vulkan or ROCm; "
        "`embellama doctor` prints the command)"
    )
    instead = "set use_gpu to 'auto' or False" if name == "use_gpu" else f"leave {name} unset"
    raise ConfigurationError(
        f"{name} = {getattr(config, name)!r}{where}, but this build of llama.cpp sees no GPU; "
        f"{way_out}, or {instead}"
    )


def _check_main_gpu(config: ModelConfig, gpus: Sequence[Device]) -> None:
    if config.main_gpu is None:
        return
    if config.main_gpu >= len(gpus):
        there = ", ".join(f"{index}: {gpu.label}" for index, gpu in enumerate(gpus))
        raise ConfigurationError(
            f"main_gpu = {config.main_gpu}, and this build of llama.cpp sees "
            f"{len(gpus)} GPU{'s' * (len(gpus) != 1)} ({there}); set main_gpu to "
            f"{'0' if len(gpus) == 1 else f'0 to {len(gpus) - 1}'}"
        )


def _check_rows(config: ModelConfig, gpus: Sequence[Device]) -> None:
    unable = [gpu.name for gpu in gpus if not gpu.splits_rows]
    if config.split_mode == "row" and unable:
        raise ConfigurationError(
            f"split_mode = 'row', which this llama.cpp cannot do on {', '.join(unable)}; "
            "set it to 'layer', or to 'none' for one GPU"
        )

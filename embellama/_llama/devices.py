"""Which devices this build of llama.cpp can use, and with which CPU features."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import llama_cpp
from llama_cpp._ggml import libggml

from embellama._llama.binding import lib, run_once

_KINDS = ("cpu", "gpu", "igpu", "accelerator", "meta")
"""Source: ``enum ggml_backend_dev_type`` in ggml-backend.h."""

libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
for _name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
    getattr(libggml, _name).restype = ctypes.c_char_p
    getattr(libggml, _name).argtypes = [ctypes.c_void_p]
libggml.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_dev_memory.argtypes = [
    ctypes.c_void_p,
    ctypes.POINTER(ctypes.c_size_t),
    ctypes.POINTER(ctypes.c_size_t),
]
libggml.ggml_backend_dev_backend_reg.restype = ctypes.c_void_p
libggml.ggml_backend_dev_backend_reg.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_reg_count.restype = ctypes.c_size_t
libggml.ggml_backend_reg_get.restype = ctypes.c_void_p
libggml.ggml_backend_reg_get.argtypes = [ctypes.c_size_t]
libggml.ggml_backend_reg_name.restype = ctypes.c_char_p
libggml.ggml_backend_reg_name.argtypes = [ctypes.c_void_p]
libggml.ggml_backend_reg_get_proc_address.restype = ctypes.c_void_p
libggml.ggml_backend_reg_get_proc_address.argtypes = [ctypes.c_void_p, ctypes.c_char_p]


@dataclass(frozen=True, slots=True)
class Device:
    """A device llama.cpp can compute on.

    Attributes:
        name: llama.cpp's name, e.g. ``"CUDA0"``.
        description: The hardware's name.
        kind: ``"cpu"``, ``"gpu"``, ``"igpu"`` or ``"accelerator"``.
        free_bytes: Memory free now.
        total_bytes: Memory in all.
        splits_rows: Whether it can hold some rows of a matrix, and other devices the rest.
        handle: The ggml_backend_dev_t.
    """

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int
    splits_rows: bool = False
    handle: int | None = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """Name it for people, e.g. ``CUDA0 (NVIDIA H200)``."""
        return f"{self.name} ({self.description})" if self.description else self.name


def list_devices() -> list[Device]:
    """List the devices this build of llama.cpp sees."""
    run_once()
    return [
        _described(libggml.ggml_backend_dev_get(index))
        for index in range(libggml.ggml_backend_dev_count())
    ]


def _described(handle: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    kind = libggml.ggml_backend_dev_type(handle)
    backend = libggml.ggml_backend_dev_backend_reg(handle)
    # llama.cpp asks for this function before it splits rows, and refuses where there is none
    splits = libggml.ggml_backend_reg_get_proc_address(backend, b"ggml_backend_split_buffer_type")
    return Device(
        name=libggml.ggml_backend_dev_name(handle).decode(),
        description=libggml.ggml_backend_dev_description(handle).decode(),
        kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else str(kind),
        free_bytes=free.value,
        total_bytes=total.value,
        splits_rows=bool(splits),
        handle=handle,
    )


def gpus_among(devices: Sequence[Device]) -> list[Device]:
    """Return the GPUs that models are put on, in the order in which ``main_gpu`` counts them.

    Integrated ones count only where there is no other, as in llama.cpp.
    """
    discrete = [device for device in devices if device.kind == "gpu"]
    return discrete or [device for device in devices if device.kind == "igpu"]


def gpu_names() -> list[str]:
    """Name the GPUs this build can offload to; empty without one."""
    return [device.name for device in gpus_among(list_devices())]


def backend_names() -> list[str]:
    """Name what this build was made for, e.g. ``["CUDA", "CPU"]``, whether it finds one or not."""
    run_once()
    return [
        libggml.ggml_backend_reg_name(libggml.ggml_backend_reg_get(index)).decode()
        for index in range(libggml.ggml_backend_reg_count())
    ]


def cpu_features() -> dict[str, bool]:
    """Return the CPU features this build uses, as llama.cpp names them."""
    run_once()
    features = {}
    for part in lib.llama_print_system_info().decode().replace(":", "|").split("|"):
        name, found, value = part.partition("=")
        if found:
            features[name.strip()] = value.strip() == "1"
    return features


def binding_version() -> str:
    """Return the version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def describe_build(version: str, features: Mapping[str, bool]) -> str:
    """Name a build of llama.cpp by its version and the CPU features it uses."""
    used = sorted(name for name, on in features.items() if on)
    return f"llama-cpp-python {version} with {' '.join(used) or 'nothing named'}"

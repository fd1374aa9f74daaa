"""Which devices this build of llama.cpp can use, and with which CPU features."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Device:
    """A device llama.cpp can compute on.

    Attributes:
        name: llama.cpp's name, e.g. ``"CUDA0"``.
        description: The hardware's name.
        kind: ``"cpu"``, ``"gpu"``, ``"igpu"`` or ``"accelerator"``.
        free_bytes: Memory free now.
        total_bytes: Memory in all.
    """

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


def list_devices() -> list[Device]:
    """List the devices this build of llama.cpp sees."""
    run_once()
    devices = []
    for index in range(libggml.ggml_backend_dev_count()):
        handle = libggml.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        libggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        kind = libggml.ggml_backend_dev_type(handle)
        devices.append(
            Device(
                name=libggml.ggml_backend_dev_name(handle).decode(),
                description=libggml.ggml_backend_dev_description(handle).decode(),
                kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else str(kind),
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return devices


def gpu_names() -> list[str]:
    """Name the GPUs this build can offload to; empty without one."""
    return [device.name for device in list_devices() if device.kind in ("gpu", "igpu")]


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

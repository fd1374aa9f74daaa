"""Which GPUs the operating system shows, whether llama.cpp was built for them or not."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MachineGPU:
    """A GPU of this machine, or the trace of one.

    Attributes:
        what: What it is, as well as the operating system tells.
        backend: What llama.cpp calls the backend made for it.
        switch: CMake's argument that builds that backend.
    """

    what: str
    backend: str
    switch: str


def machine_gpus(root: Path = Path("/")) -> list[MachineGPU]:
    """Return the GPUs the operating system shows, each with llama.cpp's switch for it.

    Args:
        root: Where the file system of the machine begins.
    """
    system = platform.system()
    if system == "Darwin":
        # Macs with Intel processors have Metal too, and gain nothing from it
        is_apple = platform.machine() == "arm64"
        return [MachineGPU("an Apple GPU", "MTL", "-DGGML_METAL=on")] if is_apple else []
    found = [*_nvidia(root)]
    if system == "Linux":
        found += _amd(root)
        if not found and any(root.glob("dev/dri/renderD*")):
            found.append(MachineGPU("a GPU", "Vulkan", "-DGGML_VULKAN=on"))
    return found


def _nvidia(root: Path) -> Iterator[MachineGPU]:
    names = [
        line.partition(":")[2].strip()
        for path in sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
        for line in _lines(path)
        if line.startswith("Model:")
    ]
    # in WSL and on Windows the driver leaves no such files, but brings its tool
    driver = (root / "proc/driver/nvidia/version").exists() or (root / "dev/nvidiactl").exists()
    if not names and (driver or (root == Path("/") and shutil.which("nvidia-smi"))):
        names = ["an NVIDIA GPU"]
    for name in names:
        yield MachineGPU(name, "CUDA", "-DGGML_CUDA=on")


def _amd(root: Path) -> Iterator[MachineGPU]:
    if (root / "dev/kfd").exists():
        yield MachineGPU("an AMD GPU", "ROCm", "-DGGML_HIP=on")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # gone, or not for us to read
        return []

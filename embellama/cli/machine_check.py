"""Checks of this machine: the build of llama.cpp, the CPU, the GPU, threads, and the cache."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from embellama._llama.devices import Device, binding_version, cpu_features, list_devices
from embellama._parallel import available_cores
from embellama.cli.cpu import ESSENTIAL, cpu_name, machine_features
from embellama.cli.findings import Finding, failure, note, ok
from embellama.cli.settings import Settings
from embellama.cli.tables import in_units
from embellama.hub.store import cache_directory

_REBUILD = (
    '`CMAKE_ARGS="{arguments}" pip install --force-reinstall --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python`"
)

_GPU_TRACES = {
    "an NVIDIA GPU": (("/proc/driver/nvidia/version", "/dev/nvidiactl"), "-DGGML_CUDA=on"),
    "an AMD GPU": (("/dev/kfd",), "-DGGML_HIP=on"),
    "a GPU": (("/dev/dri/renderD128",), "-DGGML_VULKAN=on"),
}
"""What the drivers of a GPU leave in the file system of Linux, and llama.cpp's switch for it."""


def rebuild(*arguments: str) -> str:
    """Return the command that builds llama-cpp-python on this machine."""
    return _REBUILD.format(arguments=" ".join(arguments))


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Check what every model will run on."""
    yield ok(f"llama-cpp-python {binding_version()}, Python {platform.python_version()}")
    yield from check_cpu(cpu_features(), machine_features())
    yield from check_devices(list_devices(), _gpu_traces())
    yield from check_threads(settings.model_config("").n_threads, available_cores(physical=True))
    yield from _check_cache(settings)


def check_cpu(build: Mapping[str, bool], machine: Collection[str]) -> Iterator[Finding]:
    """Compare the features this build of llama.cpp uses with those the CPU has.

    Args:
        build: What llama.cpp says it uses.
        machine: What the CPU has; empty if unknown.
    """
    used = [name for name, is_used in build.items() if is_used]
    if not machine:
        yield note(
            f"CPU: {cpu_name()}; this system does not tell its features. The build uses "
            f"{', '.join(used)}"
        )
        return
    missing = [name for name in sorted(machine) if not build.get(name)]
    if not missing:
        yield ok(f"CPU: {cpu_name()}; the build uses all it has: {', '.join(used)}")
        return
    severe = ESSENTIAL.intersection(missing)
    found = failure if severe else note
    yield found(
        f"CPU: {cpu_name()}; the build does not use {', '.join(missing)}. "
        f"{'Several times faster' if severe else 'Faster'}: build it here, with "
        f"{rebuild('-DGGML_NATIVE=on')}"
    )


def check_devices(devices: Sequence[Device], traces: Mapping[str, str]) -> Iterator[Finding]:
    """List the devices, and tell of a GPU that the build cannot use.

    Args:
        devices: What llama.cpp sees.
        traces: GPUs the operating system shows, with the build's switch for each.
    """
    for device in devices:
        memory = f", {in_units(device.total_bytes)} memory" if device.total_bytes else ""
        yield ok(f"device {device.name} ({device.kind}): {device.description}{memory}")
    if any(device.kind in ("gpu", "igpu") for device in devices):
        return
    for what, switch in traces.items():
        yield note(f"there is {what}, and this build cannot use it: {rebuild(switch)}")
        return
    yield ok("no GPU, here or in this build: models run on the CPU")


def _gpu_traces() -> dict[str, str]:
    return {
        what: switch
        for what, (paths, switch) in _GPU_TRACES.items()
        if any(Path(path).exists() for path in paths)
    }


def check_threads(wanted: int | None, n_cores: int) -> Iterator[Finding]:
    """Compare the threads that are set with the cores there are."""
    if wanted is None or wanted == n_cores:
        yield ok(f"threads: {n_cores}, one for each physical core this process may use")
    elif wanted > n_cores:
        yield note(
            f"threads: {wanted} on {n_cores} physical cores, which is slower than {n_cores} as a "
            "rule; set EMBELLAMA_N_THREADS or --threads"
        )
    else:
        yield note(f"threads: {wanted} are set, and {n_cores} physical cores are there")


def _check_cache(settings: Settings) -> Iterator[Finding]:
    directory = cache_directory(settings.engine_config().cache_path)
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        yield failure(
            f"cache: {directory} cannot be written; set EMBELLAMA_CACHE_PATH to one that can"
        )
        return
    free = shutil.disk_usage(existing).free
    yield ok(f"cache: {directory}, {in_units(free)} free")

"""Checks of this machine: llama.cpp, the native kernels, CPU, GPU, threads, and the cache."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence

from embellama._llama.devices import (
    Device,
    backend_names,
    binding_version,
    cpu_features,
    gpus_among,
    list_devices,
)
from embellama._parallel import available_cores
from embellama.cli.findings import Finding, failure, note, ok
from embellama.cli.gpu import MachineGPU, machine_gpus
from embellama.cli.native_check import check_kernels
from embellama.cli.settings import Settings
from embellama.cli.tables import in_units
from embellama.cpu import ESSENTIAL, cpu_name, machine_features
from embellama.hub.store import cache_directory

_REBUILD = (
    '`CMAKE_ARGS="{arguments}" pip install --force-reinstall --no-cache-dir '
    "--no-binary llama-cpp-python llama-cpp-python`"
)


def rebuild(*arguments: str) -> str:
    """Return the command that builds llama-cpp-python on this machine."""
    return _REBUILD.format(arguments=" ".join(arguments))


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Check what every model will run on."""
    yield ok(f"llama-cpp-python {binding_version()}, Python {platform.python_version()}")
    yield from check_cpu(cpu_features(), machine_features())
    yield check_kernels()
    yield from check_devices(list_devices(), machine_gpus(), backend_names())
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


def check_devices(
    devices: Sequence[Device], machine: Sequence[MachineGPU], backends: Collection[str] = ()
) -> Iterator[Finding]:
    """List the devices, and tell of a GPU that the build does not use.

    Args:
        devices: What llama.cpp sees.
        machine: GPUs the operating system shows.
        backends: What llama.cpp was built for.
    """
    gpus = gpus_among(devices)
    for device in devices:
        memory = f", {in_units(device.total_bytes)} memory" if device.total_bytes else ""
        number = f", main_gpu {gpus.index(device)}" if device in gpus and len(gpus) > 1 else ""
        yield ok(f"device {device.name} ({device.kind}): {device.description}{memory}{number}")
    if gpus:
        return
    if not machine:
        yield ok("no GPU, here or in this build: models run on the CPU")
        return
    there, *others = machine
    also = f" and {len(others)} more" if others else ""
    if there.backend in backends:
        yield note(
            f"there is {there.what}{also}, and the build has {there.backend} but finds no GPU: "
            "look at the driver, and at variables that hide GPUs (CUDA_VISIBLE_DEVICES…)"
        )
    else:
        yield note(
            f"there is {there.what}{also}, and this build cannot use it: {rebuild(there.switch)}"
        )


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

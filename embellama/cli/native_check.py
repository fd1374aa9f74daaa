"""Checks of the native kernels: whether they are there, and whether a model runs on them."""

from __future__ import annotations

import os
import shutil
import sys

from embellama._native.binding import Kernel, open_library
from embellama._native.support import (
    ISA_VARIABLE,
    NOT_COMPILED,
    find_kernel,
    kernels_in_use,
    wanted_isa,
)
from embellama.bench.machine import describe_kernels
from embellama.cli.findings import Finding, failure, note, ok
from embellama.errors import ConfigurationError
from embellama.gguf import GGUFMetadata
from embellama.model_info import ModelInfo

COMPILERS = ("c++", "g++", "clang++")

_GET_A_COMPILER = {
    "win32": "MinGW-w64 or Clang; Visual Studio's own does not compile them",
    "darwin": "`xcode-select --install`",
}
_GET_A_COMPILER_ELSEWHERE = "`apt install g++`, or your system's like"

_REINSTALL = (
    "install embellama again, which compiles them: `pip install --force-reinstall --no-deps .` in "
    "its sources"
)


def check_kernels() -> Finding:
    """Say which native kernels this CPU can run; where there are none, how to get them."""
    try:
        library = open_library()
    except ConfigurationError as exc:
        return failure(f"native kernels: {exc}")
    if library is None:
        return note(
            "native kernels: not compiled, so that encoders of the BERT family run on llama.cpp, "
            f"which is slower. {_how_to_compile()}"
        )
    if all(kernel.isa == "scalar" for kernel in library.kernels):
        return note(
            f"native kernels: none for this CPU in {library.path}; all models run on llama.cpp"
        )
    try:
        in_use = kernels_in_use(library.kernels)
    except ConfigurationError as exc:
        return failure(f"native kernels: {exc}")
    there = f"{describe_kernels(library.kernels)}; in {library.path}"
    if wanted_isa() is not None:
        only = ", ".join(f"{one.isa} ({one.compute_type})" for one in in_use)
        return note(f"native kernels: only {only}, for {ISA_VARIABLE} is set; there are {there}")
    return ok(f"native kernels: {there}")


def _how_to_compile() -> str:
    named = [os.environ[name] for name in ("CXX",) if os.environ.get(name)]
    there = next((name for name in (*named, *COMPILERS) if shutil.which(name)), None)
    if there is not None:
        return f"There is a compiler now, {there}: {_REINSTALL}"
    way = _GET_A_COMPILER.get(sys.platform, _GET_A_COMPILER_ELSEWHERE)
    return f"Get a C++ compiler ({way}), then {_REINSTALL}"


def check_backend(info: ModelInfo, metadata: GGUFMetadata) -> Finding:
    """Say what computes a loaded model, and if it is not the native kernels, why.

    Raises:
        ConfigurationError: The kernels are there and cannot be loaded.
    """
    if is_native(info):
        return ok(f"backend: {info.backend}")
    if info.n_layers_offloaded:
        return ok(f"backend: {info.backend}, which is what runs on a GPU")
    found = find_kernel(metadata, info.config, info.pooling_type)
    if not isinstance(found, Kernel):
        verdict = note if found == NOT_COMPILED else ok
        return verdict(f"backend: {info.backend}, not the native kernels: {found}")
    if info.config.backend == "llama":
        return note(
            f"backend: {info.backend}, for backend = 'llama' ({info.config.sources['backend']}); "
            f"the native kernels ({found}) fit the model and are faster as a rule: set backend to "
            "'auto'"
        )
    return note(
        f"backend: {info.backend}, though the native kernels ({found}) fit: they were refused when "
        "the model was loaded, and the log says why (embellama.native.refused); please report it"
    )


def check_native_type(info: ModelInfo) -> Finding:
    """Say whether a model on the native kernels could be multiplied in a faster type.

    Raises:
        ConfigurationError: `ISA_VARIABLE` names nothing that is there.
    """
    library = open_library()
    kernels = [] if library is None else kernels_in_use(library.kernels)
    has_bf16 = any(one.compute_type == "bf16" for one in kernels)
    if has_bf16 and info.backend.endswith("f32)"):
        return note(
            f"file type: {info.file_type} is multiplied in float32 here; BF16, or compute_type = "
            "'bf16', would be faster on this CPU"
        )
    return ok(f"file type: {info.file_type} suits the native kernels")


def is_native(info: ModelInfo) -> bool:
    """Tell whether the native kernels compute a model."""
    return info.backend.startswith("native")

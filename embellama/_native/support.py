"""Whether a model, as it is in its file, can run on the native kernels, and if not, why."""

from __future__ import annotations

import os
from collections.abc import Sequence

from embellama._native.architectures import ARCHITECTURES, slots_of
from embellama._native.binding import Kernel, open_library
from embellama._native.weights import TYPE_CODES
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import GGUFMetadata
from embellama.logs import log
from embellama.types import PoolingType

NOT_COMPILED = "embellama was installed without a C++ compiler, and so without the native kernels"

ISA_VARIABLE = "EMBELLAMA_ISA"
"""Environment variable with the only instruction set to use, to measure it or to find a fault."""


def why_not(metadata: GGUFMetadata, pooling_type: PoolingType) -> str | None:
    """Return what keeps a model from the native kernels on any CPU; None if nothing does."""
    if metadata.architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        return f"its architecture is {metadata.architecture!r}; the kernels run {known}"
    if pooling_type == "rank":
        return "it scores pairs"
    if metadata.norm_eps is None:
        return "its file does not say what its layer norms add to the variance"
    if ARCHITECTURES[metadata.architecture].positions == "rotary" and metadata.rope_is_scaled:
        return "it stretches its rotary positions"
    for slot in slots_of(metadata):
        if slot.place is None:
            if slot.may_lack:
                continue
            return f"it has no tensor {slot.name!r}"
        if slot.place.type_name not in TYPE_CODES:
            known = ", ".join(TYPE_CODES)
            return f"its tensor {slot.name!r} is {slot.place.type_name}; the kernels read {known}"
    return None


def find_kernel(
    metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
) -> Kernel | str:
    """Return the kernel that a model can run on, or what keeps it off them all.

    Of what ``backend`` says only this counts: kernels that are there and cannot be loaded keep no
    model from llama.cpp, and the log says so, unless they were asked for by name.

    Raises:
        ConfigurationError: `ISA_VARIABLE` names nothing that is there; or ``backend`` is
            ``"native"`` and the kernels cannot be loaded.
    """
    asks_for_one = config.main_gpu is not None or config.split_mode is not None
    if config.use_gpu is True or config.n_gpu_layers or asks_for_one:
        return "it is meant for a GPU"
    if config.use_mlock:
        return "use_mlock is set, and the kernels do not lock what they packed"
    reason = why_not(metadata, pooling_type)
    if reason is not None:
        return reason
    try:
        library = open_library()
    except ConfigurationError as exc:
        if config.backend == "native":
            raise
        log.warning("embellama.native.unusable", reason=str(exc))
        return f"they cannot be used: {exc}"
    return NOT_COMPILED if library is None else choose_kernel(metadata, config, library.kernels)


def kernels_in_use(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Return the kernels that models may run on, the fastest first.

    Those of `ISA_VARIABLE` alone where it is set; otherwise all but the scalar ones, which are what
    others are tested against and slower than llama.cpp.

    Raises:
        ConfigurationError: There are none of that instruction set.
    """
    wanted = wanted_isa()
    if wanted is None:
        return [one for one in kernels if one.isa != "scalar"]
    found = [one for one in kernels if one.isa == wanted]
    if not found:
        there = ", ".join(dict.fromkeys(one.isa for one in kernels))
        raise ConfigurationError(
            f"{ISA_VARIABLE} = {wanted!r}, and this CPU has kernels for {there}; set it to one of "
            "these, or unset it"
        )
    return found


def wanted_isa() -> str | None:
    """Return the only instruction set to use; None: whatever is there."""
    return os.environ.get(ISA_VARIABLE, "").strip() or None


def choose_kernel(
    metadata: GGUFMetadata, config: ModelConfig, kernels: Sequence[Kernel]
) -> Kernel | str:
    """Choose the fastest kernel for a model, or say why there is none.

    Files whose tensors are all F32 are multiplied in float32, others in bfloat16 where the CPU can.
    Where it cannot, Q8_0 files are multiplied as bytes, and others in float32; unless
    ``compute_type`` says otherwise.

    Raises:
        ConfigurationError: See `kernels_in_use`.
    """
    fitting = [one for one in kernels_in_use(kernels) if fits(metadata, one)]
    if config.compute_type != "auto":
        fitting = [one for one in fitting if one.compute_type == config.compute_type]
    if not fitting:
        only = f", of {ISA_VARIABLE} = {isa}," if (isa := wanted_isa()) else ""
        return (
            f"this CPU has no kernel{only} with compute_type {config.compute_type!r} for widths of "
            f"{metadata.n_embd}, {metadata.n_ff} and {metadata.head_size} in a file of "
            f"{metadata.file_type} tensors"
        )
    is_whole = {place.type_name for place in metadata.tensors.values()} == {"F32"}
    wanted = ("f32",) if is_whole else ("bf16", "int8", "f32")
    return min(fitting, key=lambda one: _place_in(wanted, one.compute_type))


def _place_in(wanted: tuple[str, ...], compute_type: str) -> int:
    return wanted.index(compute_type) if compute_type in wanted else len(wanted)


def fits(metadata: GGUFMetadata, kernel: Kernel) -> bool:
    """Tell whether a kernel takes a model's widths and, where it multiplies bytes, its tensors."""
    if kernel.compute_type == "int8" and types_of_layers(metadata) != {"Q8_0"}:
        return False
    widths = (metadata.n_embd, metadata.n_ff, metadata.head_size)
    return all(width % kernel.lanes == 0 for width in widths)


def types_of_layers(metadata: GGUFMetadata) -> set[str]:
    """Return the types of what the layers of a supported model multiply."""
    layers = [slot for slot in slots_of(metadata) if slot.name.startswith("blk.")]
    places = [slot.place for slot in layers if slot.place is not None]
    return {place.type_name for place in places if place.shape[0] > 1}  # others are single rows

"""Which backend a model would run on, told from its file."""

from __future__ import annotations

from embellama._native.library import Kernel, open_library
from embellama._native.support import choose_kernel, why_not
from embellama.config import ModelConfig
from embellama.gguf import GGUFMetadata
from embellama.types import PoolingType

NOT_COMPILED = "embellama was installed without a C++ compiler, and so without the native kernels"


def fitting_kernel(
    metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
) -> Kernel | str:
    """Return the native kernel for a model where it is not kept off them, or what keeps it off.

    What ``backend`` says is left out of account.

    Raises:
        ConfigurationError: The kernels are there and cannot be loaded.
    """
    if config.use_gpu is True or config.n_gpu_layers:
        return "it is meant for a GPU"
    reason = why_not(metadata, pooling_type)
    if reason is not None:
        return reason
    library = open_library()
    return NOT_COMPILED if library is None else choose_kernel(metadata, config, library.kernels)


def expected_backend(metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType) -> str:
    """Say which backend a load would choose, and why it is llama.cpp's where it is.

    A load that may choose compares vectors too, and looks for a GPU.

    Raises:
        ConfigurationError: The native kernels are there and cannot be loaded.
    """
    if config.backend == "llama":
        return "llama.cpp (backend = 'llama')"
    found = fitting_kernel(metadata, config, pooling_type)
    if isinstance(found, Kernel):
        return f"native ({found})"
    if config.backend == "native":
        return f"none: backend = 'native' does not fit, for {found}"
    return f"llama.cpp ({found})"

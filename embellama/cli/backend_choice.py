"""Which backend a model would run on, told from its file."""

from __future__ import annotations

from embellama._native.binding import Kernel
from embellama._native.support import find_kernel
from embellama.backends import has_gpu
from embellama.config import ModelConfig
from embellama.gguf import GGUFMetadata
from embellama.types import PoolingType


def expected_backend(metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType) -> str:
    """Say which backend a load would choose, and why it is llama.cpp's where it is.

    A load that may choose compares vectors too.

    Raises:
        ConfigurationError: See `find_kernel`.
    """
    if config.backend == "llama":
        return "llama.cpp (backend = 'llama')"
    if config.backend == "auto" and has_gpu(config):
        return "llama.cpp (there is a GPU)"
    found = find_kernel(metadata, config, pooling_type)
    if isinstance(found, Kernel):
        return f"native ({found})"
    if config.backend == "native":
        return f"none: backend = 'native' does not fit, for {found}"
    return f"llama.cpp ({found})"

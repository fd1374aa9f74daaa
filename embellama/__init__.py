"""Local text embeddings from GGUF models, computed by llama.cpp.

>>> from embellama import EmbeddingEngine
>>> engine = EmbeddingEngine()
>>> info = engine.load_model("minilm")
>>> engine.embed("minilm", "Hello, world!").shape
(384,)

Names are imported when they are first used, so that importing the package, which every command
of the command line does, takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embellama.cache import CacheStats, EmbeddingCache
    from embellama.chunks import Chunk, EmbeddedChunk
    from embellama.config import ModelConfig
    from embellama.engine import EmbeddingEngine
    from embellama.errors import (
        BatchError,
        ConfigurationError,
        ContextError,
        ConversionError,
        DecodeError,
        DownloadError,
        EmbeddingGenerationError,
        EmbeddingTimeoutError,
        EmbellamaError,
        EmbellamaWarning,
        EmptyInputError,
        GGUFFormatError,
        InputTooLongError,
        InvalidInputError,
        InvalidInputTypeError,
        MissingDependencyError,
        ModelError,
        ModelLoadError,
        ModelNotFoundError,
        OverloadedError,
    )
    from embellama.gguf import GGUFMetadata, read_metadata
    from embellama.model_info import ModelInfo
    from embellama.precision import Calibration
    from embellama.presets.engine_config import EngineConfig
    from embellama.rerank.scoring import RerankResult
    from embellama.results import EmbeddingResult, TextReport, TextToken, TokenEmbeddings
    from embellama.statistics import StatisticsSnapshot

__version__ = "0.1.0"

__all__ = [
    "BatchError",
    "CacheStats",
    "Calibration",
    "Chunk",
    "ConfigurationError",
    "ContextError",
    "ConversionError",
    "DecodeError",
    "DownloadError",
    "EmbeddedChunk",
    "EmbeddingCache",
    "EmbeddingEngine",
    "EmbeddingGenerationError",
    "EmbeddingResult",
    "EmbeddingTimeoutError",
    "EmbellamaError",
    "EmbellamaWarning",
    "EmptyInputError",
    "EngineConfig",
    "GGUFFormatError",
    "GGUFMetadata",
    "InputTooLongError",
    "InvalidInputError",
    "InvalidInputTypeError",
    "MissingDependencyError",
    "ModelConfig",
    "ModelError",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "OverloadedError",
    "RerankResult",
    "StatisticsSnapshot",
    "TextReport",
    "TextToken",
    "TokenEmbeddings",
    "__version__",
    "read_metadata",
]

_HOMES = {
    "CacheStats": "cache",
    "Calibration": "precision",
    "Chunk": "chunks",
    "EmbeddedChunk": "chunks",
    "EmbeddingCache": "cache",
    "EmbeddingEngine": "engine",
    "EmbeddingResult": "results",
    "EngineConfig": "presets.engine_config",
    "GGUFMetadata": "gguf",
    "ModelConfig": "config",
    "ModelInfo": "model_info",
    "RerankResult": "rerank.scoring",
    "StatisticsSnapshot": "statistics",
    "TextReport": "results",
    "TextToken": "results",
    "TokenEmbeddings": "results",
    "read_metadata": "gguf",
}
"""Modules of the public names; all others are errors."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

"""Local text embeddings from GGUF models, computed by llama.cpp.

>>> from embellama import EmbeddingEngine
>>> engine = EmbeddingEngine()
>>> info = engine.load_model("minilm")
>>> engine.embed("minilm", "Hello, world!").shape
(384,)
"""

from embellama.config import EngineConfig, ModelConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import (
    BatchError,
    ConfigurationError,
    ContextError,
    ConversionError,
    DecodeError,
    DownloadError,
    EmbeddingGenerationError,
    EmbellamaError,
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

__version__ = "0.1.0"

__all__ = [
    "BatchError",
    "ConfigurationError",
    "ContextError",
    "ConversionError",
    "DecodeError",
    "DownloadError",
    "EmbeddingEngine",
    "EmbeddingGenerationError",
    "EmbellamaError",
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
    "__version__",
    "read_metadata",
]

"""A model in other file types and with other attention: made, loaded, and held against its own.

Speed does not depend on what the weights are, so the types are quantized from the file at hand, at
a loss where it is quantized already; they are removed at the end. What is kept is made anew from
the best source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil

from embellama.bench.tune_speed import Variant
from embellama.config import ModelConfig
from embellama.errors import (
    ConfigurationError,
    ConversionError,
    EmbeddingGenerationError,
    ModelError,
)
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.quantize import quantize_file
from embellama.tokenization import Tokenizer
from embellama.types import (
    Backend,
    BackendModel,
    ContextOptions,
    FloatArray,
    MicroBatch,
    PoolingType,
)

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")
"""Each is the fastest on some CPU: floats, and blocks that llama.cpp repacks."""

MEMORY_SHARE = 0.5
"""Of the memory that is free, what variants may take together."""

_PROBES = (
    "A man is playing a guitar in the park.",
    "The stock market fell sharply on Monday.",
    "Zwei Kinder laufen durch den Regen.",
    "How do I reset my password?",
    "The enzyme catalyses the first step of the pathway.",
    "Le chat dort sur la table de la cuisine.",
    "def add(a, b): return a + b",
    "Flights to Lisbon in May, cheapest first",
)
"""For a first look at fidelity; `embellama bench` looks at the user's own texts."""


class Variants:
    """Loaded models of one file, one for each variant.

    Args:
        metadata: Of the file.
        config: Its settings.
        pooling_type: As decided for it.
        backend: Loads the models.
        folder: Where other types are made.
    """

    def __init__(
        self,
        metadata: GGUFMetadata,
        config: ModelConfig,
        pooling_type: PoolingType,
        *,
        backend: Backend,
        folder: Path,
    ) -> None:
        self.own = Variant(flash_attn=config.flash_attn)
        self._metadata = metadata
        self._config = config
        self._pooling_type = pooling_type
        self._backend = backend
        self._folder = folder
        self._models: dict[Variant, BackendModel] = {}

    @property
    def is_native(self) -> bool:
        """Whether the native kernels compute the model as it is."""
        return self.model(self.own).info.backend.startswith("native")

    def others(self) -> list[Variant]:
        """List what may be tried beside the model's own.

        Native kernels have one kind of attention, so that there is no other to try.
        """
        fused = () if self.is_native else (True, False)
        ways = [replace(self.own, flash_attn=way) for way in fused]
        kinds = [replace(self.own, file_type=kind) for kind in TYPES]
        return [
            *(way for way in ways if way.flash_attn is not self.own.flash_attn),
            *(kind for kind in kinds if kind.file_type != self._metadata.file_type),
        ]

    def model(self, variant: Variant) -> BackendModel:
        """Return a variant's model, loading it the first time.

        Raises:
            ConversionError: Its file cannot be made, or there is no memory for it.
            ModelError: It cannot be loaded.
        """
        if variant not in self._models:
            metadata = self._metadata
            if variant.file_type is not None:
                metadata = read_metadata(self._made(variant.file_type))
                self._check_memory(metadata)
            config = self._config.model_copy(update={"flash_attn": variant.flash_attn})
            self._models[variant] = self._backend.load(metadata, config, self._pooling_type)
        return self._models[variant]

    def _made(self, file_type: str) -> Path:
        target = self._folder / f"{file_type}.gguf"
        if not target.exists():
            quantize_file(self._metadata.path, target, file_type, requantize=True)
        return target

    def _check_memory(self, metadata: GGUFMetadata) -> None:
        free = psutil.virtual_memory().available
        if metadata.tensor_bytes > MEMORY_SHARE * free:
            raise ConversionError(
                f"its weights take {metadata.tensor_bytes / 1e6:.0f} MB beside the model's own, "
                f"and {free / 1e6:.0f} MB are free; close other programs to have it measured"
            )

    def ready(self, wanted: Sequence[Variant]) -> tuple[list[Variant], dict[Variant, str]]:
        """Load variants ahead of measuring; return those that are there, and why others are not."""
        there, missing = [], {}
        for variant in wanted:
            try:
                self.model(variant)
            except (ModelError, EmbeddingGenerationError, ConfigurationError) as exc:
                missing[variant] = str(exc)
            else:
                there.append(variant)
        return there, missing

    def least_cosine(self, variant: Variant) -> float | None:
        """Compare a variant's vectors of a few texts with the model's own.

        Returns:
            The worst cosine; None for a model that scores pairs.
        """
        if self._pooling_type == "rank":
            return None
        own, other = self._vectors(self.own), self._vectors(variant)
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
        return float(((own * other).sum(axis=1) / np.maximum(lengths, 1e-30)).min())

    def _vectors(self, variant: Variant) -> FloatArray:
        model = self.model(variant)
        tokenizer = Tokenizer(model.vocabulary, self._metadata)
        limit = self._metadata.n_ctx_train
        sequences = [tokenizer.encode(text)[:limit] for text in _PROBES]
        longest = max(map(len, sequences))
        context = model.create_context(ContextOptions(longest, 1, self._config.n_threads or 1))
        try:
            return np.concatenate([context.run(MicroBatch.pack([ids])) for ids in sequences])
        finally:
            context.close()

    def close(self) -> None:
        """Free the models. Their contexts are closed before. May be called again."""
        while self._models:
            self._models.popitem()[1].close()

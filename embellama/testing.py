"""Small public stand-ins, for scripting what a real backend does only on a bad day.

>>> backend = FakeBackend(lambda batch: np.ones((batch.n_sequences, 4), np.float32), n_embd=4)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from embellama.config import ModelConfig
from embellama.errors import ContextError
from embellama.gguf import GGUFMetadata
from embellama.types import (
    BackendInfo,
    ContextOptions,
    FloatArray,
    IntArray,
    MicroBatch,
    PoolingType,
)

Compute = Callable[[MicroBatch], FloatArray]


def length_rows(batch: MicroBatch) -> FloatArray:
    """Give each sequence the row (its length, its first id): enough to tell sequences apart."""
    lengths = np.diff(batch.offsets)
    firsts = batch.input_ids[batch.offsets[:-1]]
    return np.stack([lengths, firsts], axis=1).astype(np.float32)


class FakeVocabulary:
    """One id a word (the word's length), between 1 and 2 as special tokens."""

    n_tokens = 1000

    def tokenize(self, text: str, *, add_special: bool = True) -> IntArray:
        """Return int32 (n_words + 2,) ids."""
        words = [10 + len(word) for word in text.split()]
        return np.array([1, *words, 2] if add_special else words, dtype=np.int32)

    def pieces(self, ids: IntArray) -> list[bytes]:
        """Return nothing for every id: a word's length does not say which word it was."""
        return [b"" for _ in ids]


class FakeContext:
    """Answers micro-batches with a callable; remembers what it was given."""

    def __init__(self, model: FakeModel, options: ContextOptions) -> None:
        self.options = options
        self.closed = False
        self.size_bytes = 16 * options.n_tokens
        self.batches: list[MicroBatch] = []
        self.thread = threading.current_thread()
        self.n_threads = options.n_threads
        self._model = model

    def set_n_threads(self, n_threads: int) -> None:
        """Remember it."""
        self.n_threads = n_threads

    def run(self, batch: MicroBatch) -> FloatArray:
        """Return what the callable makes of the micro-batch."""
        if self.closed:
            raise ContextError("the context is closed")
        self.batches.append(batch)
        return self._model.compute(batch)

    def close(self) -> None:
        """Remember being closed."""
        self.closed = True


@dataclass
class FakeModel:
    """Makes fake contexts; a callable decides what they answer."""

    compute: Compute = length_rows
    n_embd: int = 2
    pooling_type: PoolingType = "mean"
    contexts: list[FakeContext] = field(default_factory=list)
    closed: bool = False
    vocabulary: FakeVocabulary = field(default_factory=FakeVocabulary)

    @property
    def info(self) -> BackendInfo:
        """What the model says about itself."""
        return BackendInfo(
            n_embd=self.n_embd,
            n_vocab=self.vocabulary.n_tokens,
            n_ctx_train=512,
            pooling_type=self.pooling_type,
            device="fake",
            n_layers_offloaded=0,
            n_layers=1,
            size_bytes=1000,
        )

    def control_tokens(self, text: str) -> Mapping[str, int]:
        """Find none."""
        return {}

    def create_context(self, options: ContextOptions) -> FakeContext:
        """Make a context."""
        context = FakeContext(self, options)
        self.contexts.append(context)
        return context

    def close(self) -> None:
        """Remember being closed."""
        self.closed = True


class FakeBackend:
    """A backend that a callable answers for. The file's metadata is still read.

    Args:
        compute: Makes the rows of a micro-batch; may raise, or block.
        n_embd: Components of its rows.
    """

    build = "fake"

    def __init__(self, compute: Compute = length_rows, *, n_embd: int = 2) -> None:
        self._compute = compute
        self._n_embd = n_embd
        self.models: list[FakeModel] = []

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> FakeModel:
        """Make a model that answers with the callable."""
        model = FakeModel(self._compute, self._n_embd, pooling_type)
        self.models.append(model)
        return model

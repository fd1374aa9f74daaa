"""The words that cross a room's border: plain data, and what a backend has to offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from embellama.config import ModelConfig
    from embellama.gguf import GGUFMetadata

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

PoolingType: TypeAlias = Literal["none", "mean", "cls", "last", "rank"]
Normalization: TypeAlias = Literal["l2", "none"]
Overflow: TypeAlias = Literal["error"]
"""What happens to a text over the limit; so far there is one answer: nothing is cut."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one call of a backend computes: whole sequences, laid end to end.

    Attributes:
        input_ids: int32 (n_tokens,), the token ids of all sequences one after the other.
        offsets: int32 (n_sequences + 1,), sequence ``i`` is ``input_ids[offsets[i]:offsets[i+1]]``.
    """

    input_ids: IntArray
    offsets: IntArray

    @classmethod
    def pack(cls, sequences: Sequence[IntArray]) -> MicroBatch:
        """Lay the sequences end to end."""
        offsets = np.zeros(len(sequences) + 1, dtype=np.int32)
        np.cumsum([len(ids) for ids in sequences], out=offsets[1:])
        return cls(np.concatenate(sequences), offsets)

    @property
    def n_tokens(self) -> int:
        """Tokens of all sequences together."""
        return len(self.input_ids)

    @property
    def n_sequences(self) -> int:
        """How many sequences are packed."""
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """What a loaded model says about itself.

    Attributes:
        n_embd: Components of a vector.
        n_vocab: Token ids are below this.
        n_ctx_train: Positions the model was trained for.
        pooling_type: How token rows become one row, as the context applies it.
        device: Where it runs, e.g. ``"CPU"`` or a GPU's name.
        n_layers_offloaded: Layers that really run on a GPU.
        n_layers: Layers that could, output layer included.
        size_bytes: Bytes of the weights.
        warnings: What the user should know about this model on this machine.
    """

    n_embd: int
    n_vocab: int
    n_ctx_train: int
    pooling_type: PoolingType
    device: str
    n_layers_offloaded: int
    n_layers: int
    size_bytes: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """The size and the threads of a worker's context.

    Attributes:
        n_tokens: Most tokens in a micro-batch, and in any one sequence.
        n_sequences: Most sequences in a micro-batch.
        n_threads: CPU threads of one forward pass.
    """

    n_tokens: int
    n_sequences: int
    n_threads: int


class Vocabulary(Protocol):
    """Text to token ids. Safe to use from any thread."""

    def tokenize(self, text: str, *, add_special: bool = True) -> IntArray:
        """Return int32 (n_tokens,) ids of a text; special tokens inside it are text."""
        ...


class BackendContext(Protocol):
    """The buffers of one forward pass at a time. Owned by one thread."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the buffers."""
        ...

    def run(self, batch: MicroBatch) -> FloatArray:
        """Compute a micro-batch.

        Returns:
            float32 (n_sequences, n_embd) pooled rows that the caller owns, not normalised; with
            ``pooling_type="none"`` (n_tokens, n_embd) token rows in the order of ``input_ids``.
        """
        ...

    def close(self) -> None:
        """Give the buffers back. May be called again."""
        ...


class BackendModel(Protocol):
    """Weights in memory, shared by any number of contexts."""

    @property
    def info(self) -> BackendInfo:
        """What the loaded model says about itself."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The file's vocabulary; lives as long as the model."""
        ...

    def create_context(self, options: ContextOptions) -> BackendContext:
        """Make a context of a size. Called from the thread that will own it."""
        ...

    def close(self) -> None:
        """Free the weights. Every context is closed before. May be called again."""
        ...


class Backend(Protocol):
    """What can run a GGUF. It lends the file's vocabulary; tokenization is not its concern."""

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> BackendModel:
        """Load the weights of the model file that was read before."""
        ...

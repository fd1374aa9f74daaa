"""The words that cross a room's border: plain data, and what a backend has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from embellama.config import ModelConfig
    from embellama.gguf import GGUFMetadata

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int32]

PoolingType: TypeAlias = Literal["none", "mean", "cls", "last", "rank", "max", "mean_sqrt_len"]
"""The first five are llama.cpp's, in the order of its codes; the others are computed here."""

Normalization: TypeAlias = Literal["l2", "none", "max_abs"] | int
"""How a vector is scaled; a number ``p`` from 1 means its p-norm becomes 1."""

Precision: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
Overflow: TypeAlias = Literal["error", "truncate", "window"]
"""What happens to a text over the limit: refused, cut, or embedded in overlapping windows."""

TruncateSide: TypeAlias = Literal["right", "left"]
"""Which end of a text a cut takes away."""

Kind: TypeAlias = Literal["query", "document"]
"""The role of a text in a search, for models that were trained with a prompt for each."""


Priority: TypeAlias = Literal["interactive", "bulk"]
"""How urgent a call is: somebody waits for each answer, or for the whole."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What one call of a backend computes: whole sequences, laid end to end.

    Attributes:
        input_ids: int32 (n_tokens,), the token ids of all sequences one after the other.
        offsets: int32 (n_sequences + 1,), sequence ``i`` is ``input_ids[offsets[i]:offsets[i+1]]``.
        token_types: int32 (n_tokens,), 0 for the first text of a pair and 1 for the second, for
            models that tell them apart; None: all 0.
    """

    input_ids: IntArray
    offsets: IntArray
    token_types: IntArray | None = None

    @classmethod
    def pack(
        cls, sequences: Sequence[IntArray], token_types: Sequence[IntArray] | None = None
    ) -> MicroBatch:
        """Lay the sequences end to end, and their token types where there are any."""
        ends = accumulate(map(len, sequences), initial=0)
        offsets = np.fromiter(ends, dtype=np.int32, count=len(sequences) + 1)
        types = np.concatenate(token_types) if token_types is not None else None
        return cls(np.concatenate(sequences), offsets, types)

    def singles(self) -> list[MicroBatch]:
        """Return each sequence in a micro-batch of its own."""
        bounds = list(pairwise(self.offsets.tolist()))
        types = self.token_types
        return [
            MicroBatch.pack(
                [self.input_ids[start:stop]], None if types is None else [types[start:stop]]
            )
            for start, stop in bounds
        ]

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
        backend: What computes: ``"llama.cpp"``, or ``"native"`` with its kernels in parentheses.
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
    backend: str = "llama.cpp"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CachedVector:
    """A vector with what has to be known of how it came about.

    Attributes:
        vector: float32 (n_embd,), whole: shorter lengths and other precisions are made from it.
        n_tokens: Tokens of the text, special tokens included, before any cut.
        n_dropped: Tokens that a cut took away.
        n_windows: Windows the text was embedded in; 1 unless it was over the limit.
    """

    vector: FloatArray
    n_tokens: int
    n_dropped: int = 0
    n_windows: int = 1


class VectorCache(Protocol):
    """Vectors by key. Safe to use from any thread."""

    def get_many(self, keys: Sequence[bytes]) -> list[CachedVector | None]:
        """Return what is there, in the order of the keys; None for what is not."""
        ...

    def put_many(self, items: Sequence[tuple[bytes, CachedVector]]) -> None:
        """Keep vectors. A cache that cannot says so in a log event and goes on without."""
        ...


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """The size and the threads of a worker's context.

    Attributes:
        n_tokens: Most tokens in a micro-batch, and in any one sequence.
        n_sequences: Most sequences in a micro-batch.
        n_threads: CPU threads of one forward pass, to begin with.
        pooling_type: Another pooling than the model's own; ``"none"`` for token rows.
    """

    n_tokens: int
    n_sequences: int
    n_threads: int
    pooling_type: PoolingType | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cores are shared out for one kind of work.

    Attributes:
        n_contexts: Micro-batches that are computed at the same time.
        n_threads: CPU threads of each.
        max_batch_tokens: Tokens of a micro-batch.
    """

    n_contexts: int
    n_threads: int
    max_batch_tokens: int

    def __str__(self) -> str:
        return f"{self.n_contexts} × {self.n_threads}, micro-batches of {self.max_batch_tokens}"


@dataclass(frozen=True, slots=True)
class Layouts:
    """Layouts by kind of work.

    Attributes:
        short: Many texts of less than `SHORT_TOKENS` tokens on average.
        long: Many longer ones.
        single: One text, and nothing else to do.
    """

    short: Layout
    long: Layout
    single: Layout

    @classmethod
    def of_one(cls, layout: Layout) -> Layouts:
        """Take one layout for every kind of work."""
        return cls(short=layout, long=layout, single=layout)

    @property
    def n_contexts(self) -> int:
        """Contexts that some kind of work needs."""
        return max(self.short.n_contexts, self.long.n_contexts, self.single.n_contexts)

    @property
    def n_threads(self) -> int:
        """Threads that all contexts have together, where the work is what it takes most for."""
        parts = (self.short, self.long, self.single)
        return max(part.n_contexts * part.n_threads for part in parts)

    @property
    def most_threads(self) -> int:
        """Threads that one long text may take: all, unless every kind of work has the same."""
        is_fixed = self.short == self.long == self.single
        return self.single.n_threads if is_fixed else self.n_threads

    @property
    def max_batch_tokens(self) -> int:
        """Tokens of the largest micro-batch of any kind."""
        parts = (self.short, self.long, self.single)
        return max(part.max_batch_tokens for part in parts)


SHORT_TOKENS = 64
"""Mean tokens of a text below which texts count as short."""


class Vocabulary(Protocol):
    """Text to token ids. Safe to use from any thread."""

    def tokenize(self, text: str, *, add_special: bool = True) -> IntArray:
        """Return int32 (n_tokens,) ids of a text; special tokens inside it are text."""
        ...

    def pieces(self, ids: IntArray) -> list[bytes]:
        """Return the bytes each token stands for; empty for special and unknown ones.

        A leading space marks the beginning of a word in vocabularies that mark it.
        """
        ...


class BackendContext(Protocol):
    """The buffers of one forward pass at a time. Owned by one thread."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the buffers."""
        ...

    def set_n_threads(self, n_threads: int) -> None:
        """Compute with so many CPU threads from now on."""
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

    def control_tokens(self, text: str) -> Mapping[str, int]:
        """Return the control tokens that a trusted text spells, and their ids."""
        ...

    def create_context(self, options: ContextOptions) -> BackendContext:
        """Make a context of a size. Called from the thread that will own it."""
        ...

    def close(self) -> None:
        """Free the weights. Every context is closed before. May be called again."""
        ...


class Backend(Protocol):
    """What can run a GGUF. It lends the file's vocabulary; tokenization is not its concern."""

    @property
    def build(self) -> str:
        """Which build of what it is; what was measured with one says nothing about another."""
        ...

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> BackendModel:
        """Load the weights of the model file that was read before."""
        ...

"""What a model takes in memory on the native kernels, told before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from embellama._native.architectures import ARCHITECTURES, activation_of
from embellama._native.binding import Kernel
from embellama._native.support import find_kernel, types_of_layers
from embellama.config import ModelConfig
from embellama.gguf import GGUFMetadata
from embellama.memory_estimate import ModelShape, shape_of
from embellama.types import PoolingType

_FLOAT = 4
_BLOCK, _BLOCK_UNITS = 32, 10
"""Weights of a block of bytes, and what they come to. Source: native/src/int8_layout.h."""

_INNER_WIDTH = 96
"""Columns that are made at a time where operands are bytes. Source: ``Packing``, model.h there."""

_LANES_PANEL_ROWS = {
    "avx512": (16, 48, 8),
    "avx2": (8, 16, 6),
    "neon": (4, 16, 6),
    "scalar": (1, 4, 4),
}
"""Of a vector, columns of a panel, and rows of a tile. Source: simd_*.h there."""


@dataclass(frozen=True, slots=True)
class KernelMemory:
    """The widths that decide what a kernel takes.

    Attributes:
        kernel: Which one.
        n_layer: Layers.
        n_embd: Components of a token row.
        n_ff: Components inside a feed-forward block.
        n_head: Attention heads.
        n_rotated: Components of a head that are rotated.
        n_table_rows: Rows of the tables of positions and of token types.
        is_gated: Whether the feed-forward block has a gate.
        is_alibi: Whether positions are told by a bias of the scores.
        has_query_norms: Whether queries and keys are normalised.
        has_second_norm: Whether attention's input is added and normalised once more.
        has_halves: Whether what the layers multiply is all F16, or all BF16.
        table_bytes: Of the token table, which is read where it is.
    """

    kernel: Kernel
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_rotated: int
    n_table_rows: int
    is_gated: bool
    is_alibi: bool
    has_query_norms: bool
    has_second_norm: bool
    has_halves: bool
    table_bytes: int

    @property
    def _is_int8(self) -> bool:
        return self.kernel.compute_type == "int8"

    @property
    def _keeps_halves(self) -> bool:
        """Whether weights of 16 bits stay so. Source: ``KEEPS_HALVES`` in native/src/simd_*.h."""
        is_f32 = self.kernel.compute_type == "f32"
        return self.has_halves and is_f32 and self.kernel.isa != "avx512"

    @property
    def weights_bytes(self) -> int:
        """The packed weights and the token table.

        Source: ``packed_bytes`` in native/src/build_model.cpp.
        """
        n_embd, n_ff = self.n_embd, self.n_ff
        n_up = 2 if self.is_gated else 1
        weights = 4 * n_embd * n_embd + (n_up + 1) * n_embd * n_ff
        biases = 5 * n_embd + n_up * n_ff
        n_norms = 2 + 2 * self.has_query_norms + self.has_second_norm
        packed = weights // (2 if self._keeps_halves else _FLOAT // self.kernel.value_bytes)
        if self._is_int8:
            packed = weights // _BLOCK * _BLOCK_UNITS
        layer = packed + biases + 2 * n_norms * n_embd
        slopes = self.n_head if self.is_alibi else 0
        tables = (self.n_table_rows + 2) * n_embd + slopes
        return self.table_bytes + _FLOAT * (self.n_layer * layer + tables)

    def context_bytes(self, n_tokens: int, n_threads: int = 1) -> int:
        """Return what a context takes for micro-batches of so many tokens.

        Args:
            n_tokens: Of the largest micro-batch.
            n_threads: Threads that share one.

        Source: ``Workspace`` in native/src/workspace.cpp.
        """
        a_unit = _FLOAT // self.kernel.value_bytes
        lanes, panel, n_rows = _LANES_PANEL_ROWS[self.kernel.isa]
        step = max(lanes, a_unit)
        padded = -(-n_tokens // step) * step
        operands = n_tokens * (5 * self.n_embd + self.n_ff) // a_unit
        if self._is_int8:
            bytes_and_scales = (self.n_embd + self.n_ff) // 4 + (
                2 * self.n_embd + self.n_ff
            ) // _BLOCK
            operands = n_tokens * (3 * self.n_embd // a_unit + self.n_embd + bytes_and_scales)
        floats = n_tokens * self.n_embd * (1 + self.has_second_norm)
        if self.n_rotated or self.has_query_norms:
            floats += n_tokens * 2 * self.n_embd
        floats += n_tokens * self.n_rotated
        if self.is_alibi:
            floats += n_tokens + padded + 1
        head_size = self.n_embd // self.n_head
        room = 2 * (padded * head_size // a_unit) + n_rows * padded + n_rows * padded // a_unit
        if self.is_gated or self._is_int8:
            room += n_tokens * (_INNER_WIDTH if self._is_int8 else panel)
        if self._keeps_halves:
            room += panel * max(self.n_embd, self.n_ff)
        return _FLOAT * (operands + floats + n_threads * room)


def kernel_memory(metadata: GGUFMetadata, kernel: Kernel) -> KernelMemory:
    """Take the widths of a model that a kernel can run from what its header says."""
    tensors = metadata.tensors
    positions = ARCHITECTURES[metadata.architecture].positions

    def rows(name: str, otherwise: int) -> int:
        place = tensors.get(name)
        return otherwise if place is None else place.shape[0]

    n_positions = rows("position_embd.weight", 0) if positions == "absolute" else 0
    return KernelMemory(
        kernel=kernel,
        n_layer=metadata.n_layer,
        n_embd=metadata.n_embd,
        n_ff=metadata.n_ff,
        n_head=metadata.n_head,
        n_rotated=metadata.n_rotated if positions == "rotary" else 0,
        n_table_rows=n_positions + rows("token_types.weight", 1),
        is_gated=activation_of(metadata) != "gelu",
        is_alibi=positions == "alibi",
        has_query_norms="blk.0.attn_q_norm.weight" in tensors,
        has_second_norm="blk.0.attn_norm_2.weight" in tensors,
        has_halves=types_of_layers(metadata) in ({"F16"}, {"BF16"}),
        table_bytes=tensors["token_embd.weight"].size_bytes,
    )


def shape_on(metadata: GGUFMetadata, kernel: Kernel | None) -> ModelShape:
    """Take the widths that decide about memory from a header.

    Args:
        metadata: Of the model's file.
        kernel: What runs it; None: llama.cpp.
    """
    shape = shape_of(metadata)
    if kernel is None:
        return shape
    memory = kernel_memory(metadata, kernel)
    return replace(shape, weights_bytes=memory.weights_bytes, kernel_memory=memory)


def expected_shape(
    metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
) -> ModelShape:
    """Take them from a header for the backend that a load would choose on a CPU.

    Raises:
        ConfigurationError: See `find_kernel`.
    """
    if config.backend == "llama":
        return shape_of(metadata)
    kernel = find_kernel(metadata, config, pooling_type)
    return shape_on(metadata, kernel if isinstance(kernel, Kernel) else None)

"""A model on the native kernels; its vocabulary stays llama.cpp's."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from embellama._native.architectures import (
    ACTIVATION_CODES,
    ALIBI_BIAS,
    ARCHITECTURES,
    POSITION_CODES,
    activation_of,
)
from embellama._native.binding import Kernel, Library, Message, Shape
from embellama._native.context import NativeContext
from embellama._native.weights import TOKEN_TABLE, MappedWeights
from embellama.errors import ContextError, ModelLoadError
from embellama.gguf import GGUFMetadata
from embellama.types import BackendInfo, BackendModel, ContextOptions, PoolingType, Vocabulary

_ANY_LENGTH = 1 << 24
"""Where no table of positions ends a sequence, but the context's size.

Source: ``MOST`` in native/src/build_model.cpp.
"""


class NativeModel:
    """Packed weights, shared by any number of contexts. Close those first.

    Args:
        library: The kernels.
        kernel: Which of them.
        metadata: The model's file.
        pooling_type: How token rows become one vector.
        words: The same file opened for its vocabulary; closed with this.
        use_mmap: Whether token rows are read from the mapped file; otherwise from a copy.

    Raises:
        ModelLoadError: The tensors do not fit together, or memory is short.
    """

    def __init__(
        self,
        library: Library,
        kernel: Kernel,
        metadata: GGUFMetadata,
        pooling_type: PoolingType,
        words: BackendModel,
        *,
        use_mmap: bool = True,
    ) -> None:
        self._library = library
        self._pooling_type: PoolingType = pooling_type
        self._words = words
        self._weights = MappedWeights(metadata, use_mmap=use_mmap)
        message = Message()
        shape = _shape_of(metadata)
        self._handle: Any = library.c.em_model_new(
            ctypes.byref(shape),
            kernel.number,
            self._weights.tensors,
            self._weights.n_tensors,
            *message.arguments,
        )
        if not self._handle:
            raise ModelLoadError(
                f"the native kernels cannot take {str(metadata.path)!r}: {message}; "
                "set backend='llama'"
            )
        self.kernel = kernel
        self.name = metadata.name
        try:
            self._weights.release()
        except BaseException:
            library.c.em_model_free(self._handle)
            raise
        table = metadata.tensors[TOKEN_TABLE].size_bytes
        self.info: BackendInfo = replace(
            words.info,
            n_embd=metadata.n_embd,
            device="CPU",
            n_layers_offloaded=0,
            size_bytes=table + int(library.c.em_model_bytes(self._handle)),
            backend=f"native ({kernel})",
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """The file's vocabulary; lives as long as the model."""
        return self._words.vocabulary

    def control_tokens(self, text: str) -> Mapping[str, int]:
        """Return the control tokens that a trusted text spells, and their ids."""
        return self._words.control_tokens(text)

    def create_context(self, options: ContextOptions) -> NativeContext:
        """Make a context; see `BackendModel.create_context`.

        Raises:
            ContextError: The model is closed, or memory is short.
        """
        if self._handle is None:
            raise ContextError("the model is closed")
        return NativeContext(
            self._library,
            self._handle,
            options,
            pooling_type=options.pooling_type or self._pooling_type,
            n_embd=self.info.n_embd,
        )

    def close(self) -> None:
        """Free weights and vocabulary. May be called again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._library.c.em_model_free(handle)
            self._words.close()
            self._weights.close()


def _shape_of(metadata: GGUFMetadata) -> Shape:
    def rows(name: str, otherwise: int) -> int:
        place = metadata.tensors.get(name)
        return otherwise if place is None else place.shape[0]

    positions = ARCHITECTURES[metadata.architecture].positions
    has_table = positions == "absolute"
    return Shape(
        n_layers=metadata.n_layer,
        n_embd=metadata.n_embd,
        n_ff=metadata.n_ff,
        n_heads=metadata.n_head,
        n_token_types=rows("token_types.weight", 1),
        n_vocab=rows("token_embd.weight", 0),
        n_positions=rows("position_embd.weight", 0) if has_table else _ANY_LENGTH,
        n_rotated=metadata.n_rotated,
        position_encoding=POSITION_CODES[positions],
        activation=ACTIVATION_CODES[activation_of(metadata)],
        norm_eps=metadata.norm_eps,
        rotary_base=metadata.rope_freq_base,
        alibi_bias=ALIBI_BIAS,
    )

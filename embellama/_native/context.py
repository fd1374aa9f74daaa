"""The workspace of a forward pass on the native kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from embellama._native.binding import Library, Message
from embellama.errors import ContextError, EmbeddingGenerationError, InvalidInputError
from embellama.types import ContextOptions, FloatArray, MicroBatch, PoolingType

POOLING_CODES: dict[PoolingType, int] = {
    "none": 0,
    "mean": 1,
    "cls": 2,
    "last": 3,
    "max": 0,
    "mean_sqrt_len": 0,
}
"""How the kernels have to pool; what they do not know is made of their token rows."""

_INVALID = 1
"""Source: ``enum em_status`` in native/src/embellama_native.h."""


class NativeContext:
    """Buffers for micro-batches of up to ``options.n_tokens`` tokens. Owned by one thread."""

    def __init__(
        self,
        library: Library,
        model: Any,
        options: ContextOptions,
        *,
        pooling_type: PoolingType,
        n_embd: int,
    ) -> None:
        self._c = library.c
        self._n_embd = n_embd
        self._n_tokens = options.n_tokens
        self._n_sequences = options.n_sequences
        self._n_threads = options.n_threads
        self._pooling = POOLING_CODES[pooling_type]
        self._message = Message()
        self._handle = self._c.em_context_new(
            model, options.n_tokens, options.n_threads, *self._message.arguments
        )
        if not self._handle:
            raise ContextError(
                f"no context of {options.n_tokens} tokens: {self._message}; lower n_ctx or "
                "max_batch_tokens"
            )
        self.size_bytes = int(self._c.em_context_bytes(self._handle))

    def set_n_threads(self, n_threads: int) -> None:
        """Change how many threads share a micro-batch; see `BackendContext.set_n_threads`."""
        self._n_threads = n_threads

    def run(self, batch: MicroBatch) -> FloatArray:
        """Compute a micro-batch; see `BackendContext.run`.

        Raises:
            ContextError: The context is closed.
            InvalidInputError: Sizes or ids out of range.
            EmbeddingGenerationError: Memory is short.
        """
        if self._handle is None:
            raise ContextError("the context is closed")
        if batch.n_sequences > self._n_sequences:
            raise InvalidInputError(
                f"{batch.n_sequences} sequences in a micro-batch; this context takes 1 to "
                f"{self._n_sequences}"
            )
        ids = np.ascontiguousarray(batch.input_ids, dtype=np.int32)
        offsets = np.ascontiguousarray(batch.offsets, dtype=np.int32)
        if int(offsets[-1]) != len(ids):
            raise InvalidInputError(f"sequences of {offsets[-1]} tokens in {len(ids)} ids")
        types = batch.token_types
        if types is not None:
            types = np.ascontiguousarray(types, dtype=np.int32)
            if types.shape != ids.shape:
                raise InvalidInputError(
                    f"token types of shape {types.shape} for {len(ids)} tokens; give one for each"
                )
        n_rows = batch.n_tokens if self._pooling == 0 else batch.n_sequences
        out = np.empty((n_rows, self._n_embd), dtype=np.float32)
        status = self._c.em_encode(
            self._handle,
            ids.ctypes.data,
            None if types is None else types.ctypes.data,
            offsets.ctypes.data,
            batch.n_sequences,
            self._pooling,
            self._n_threads,
            out.ctypes.data,
            *self._message.arguments,
        )
        if status == _INVALID:
            raise InvalidInputError(str(self._message))
        if status:
            raise EmbeddingGenerationError(f"the native kernels failed: {self._message}")
        return out

    def close(self) -> None:
        """Free the buffers. May be called again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._c.em_context_free(handle)

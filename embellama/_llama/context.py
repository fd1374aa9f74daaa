"""The buffers of a forward pass: a llama_context that runs one micro-batch at a time."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from embellama._llama.binding import LogLines, lib
from embellama._llama.token_types import TypedTokens
from embellama.errors import ContextError, DecodeError, InvalidInputError
from embellama.types import ContextOptions, FloatArray, IntArray, MicroBatch, PoolingType

POOLING_CODES: dict[PoolingType, int] = {
    "none": 0,
    "mean": 1,
    "cls": 2,
    "last": 3,
    "rank": 4,
    "max": 0,
    "mean_sqrt_len": 0,
}
"""How llama.cpp has to pool; what it does not know is made of its token rows.

Source: ``enum llama_pooling_type`` in llama.h.
"""

_STATUS = {
    1: "no room in the KV cache for the micro-batch",
    2: "aborted",
    -1: "llama.cpp refused the micro-batch",
    -2: "memory could not be allocated",
    -3: "the computation failed",
}


class LlamaContext:
    """A llama_context and the arrays it reads. Owned by one thread.

    A context of ``n_tokens`` takes micro-batches of up to that many tokens in one call:
    n_ctx = n_batch = n_ubatch, because an encoder cannot split a sequence.
    """

    def __init__(
        self,
        model: Any,
        options: ContextOptions,
        *,
        pooling_type: PoolingType,
        max_positions: int | None,
        typed_tokens: TypedTokens | None,
        params: Any,
    ) -> None:
        self._handle: Any = None
        self._max_positions = max_positions
        self._typed_tokens = typed_tokens
        self._n_sequences = options.n_sequences
        # llama.cpp rounds n_ctx down to a multiple of n_seq_max: round up before it does
        self._n_tokens = -(-options.n_tokens // options.n_sequences) * options.n_sequences
        params.n_ctx = params.n_batch = params.n_ubatch = self._n_tokens
        params.n_seq_max = options.n_sequences
        params.n_threads = params.n_threads_batch = options.n_threads
        params.pooling_type = POOLING_CODES[pooling_type]
        params.embeddings = True
        params.kv_unified = True
        params.no_perf = True
        with LogLines() as lines:
            self._handle = lib.llama_init_from_model(model, params)
        if not self._handle:
            raise ContextError(
                f"llama.cpp could not make a context of {self._n_tokens} tokens × "
                f"{options.n_sequences} sequences: {'; '.join(lines.relevant())}; "
                "lower n_ctx or max_batch_tokens"
            )
        sizes = lines.find(r"buffer size\s*=\s*([\d.]+) MiB")
        self.buffers_bytes = int(sum(float(match[1]) for match in sizes) * 2**20)
        self._pooled = POOLING_CODES[pooling_type] != 0
        self._n_vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
        # llama.cpp keeps a score of every token of the vocabulary for each token it computes, also
        # where only vectors are wanted; the room for them grows with the largest micro-batch
        self.size_bytes = self.buffers_bytes + 4 * self._n_vocab * self._n_tokens
        self._n_out = _n_out(model, pooling_type)
        self._memory = lib.llama_get_memory(self._handle)
        encoder = not self._memory or lib.llama_model_has_encoder(model)
        self._forward = lib.llama_encode if encoder else lib.llama_decode
        self._allocate()

    def _allocate(self) -> None:
        n = self._n_tokens
        self._ids = np.zeros(n, dtype=np.int32)
        self._positions = np.zeros(n, dtype=np.int32)
        self._sequences = np.zeros(n, dtype=np.int32)
        self._ones = np.ones(n, dtype=np.int32)
        self._outputs = np.ones(n, dtype=np.int8)
        # seq_id is an array of pointers, one per token, each to that token's one sequence id
        first = self._sequences.ctypes.data
        self._pointers = (first + 4 * np.arange(n, dtype=np.uintp)).astype(np.uintp)
        self._counting = np.arange(n, dtype=np.int32)
        self._takes_embeddings = False
        self._batch = lib.llama_batch()
        _point(self._batch, "token", self._ids)
        _point(self._batch, "pos", self._positions)
        _point(self._batch, "n_seq_id", self._ones)
        _point(self._batch, "seq_id", self._pointers)
        _point(self._batch, "logits", self._outputs)

    def set_n_threads(self, n_threads: int) -> None:
        """Compute with so many CPU threads from now on.

        Raises:
            ContextError: The context is closed.
        """
        if self._handle is None:
            raise ContextError("the context is closed")
        lib.llama_set_n_threads(self._handle, n_threads, n_threads)

    def run(self, batch: MicroBatch) -> FloatArray:
        """Compute a micro-batch; see `BackendContext.run`.

        Raises:
            ContextError: The context is closed.
            InvalidInputError: Sizes or ids that llama.cpp would abort on.
            DecodeError: llama.cpp returned a status other than 0.
        """
        if self._handle is None:
            raise ContextError("the context is closed")
        lengths = batch.offsets[1:] - batch.offsets[:-1]
        self._check(batch, lengths)
        n = batch.n_tokens
        embeddings = self._embeddings(batch)
        if embeddings is None:
            self._ids[:n] = batch.input_ids
        if embeddings is not None or self._takes_embeddings:
            _point(self._batch, "embd", embeddings)
            _point(self._batch, "token", self._ids if embeddings is None else None)
            self._takes_embeddings = embeddings is not None
        if batch.n_sequences == 1:
            self._sequences[:n] = 0
            self._positions[:n] = self._counting[:n]
        else:
            self._sequences[:n] = np.repeat(self._counting[: batch.n_sequences], lengths)
            self._positions[:n] = self._counting[:n] - np.repeat(batch.offsets[:-1], lengths)
        self._batch.n_tokens = n
        if self._memory:
            lib.llama_memory_clear(self._memory, False)
        with LogLines() as lines:
            status = self._forward(self._handle, self._batch)
        if status != 0:
            why = _STATUS.get(status, "unknown status")
            raise DecodeError(
                f"llama.cpp returned {status} ({why}) for {batch.n_sequences} sequences of "
                f"{n} tokens: {'; '.join(lines.relevant())}",
                status=status,
            )
        return self._copy_rows(batch)

    def _embeddings(self, batch: MicroBatch) -> FloatArray | None:
        """Return what goes in instead of ids, float32 (n_tokens, n_embd), if types ask for it."""
        if batch.token_types is None or not batch.token_types.any() or self._typed_tokens is None:
            return None
        return self._typed_tokens.read(batch.input_ids, batch.token_types)

    def _check(self, batch: MicroBatch, lengths: np.ndarray[Any, Any]) -> None:
        """Refuse what llama.cpp answers with an abort of the process."""
        if not 1 <= batch.n_sequences <= self._n_sequences:
            raise InvalidInputError(
                f"{batch.n_sequences} sequences in a micro-batch; this context takes 1 to "
                f"{self._n_sequences}"
            )
        if batch.n_tokens > self._n_tokens:
            raise InvalidInputError(
                f"{batch.n_tokens} tokens in a micro-batch; this context takes {self._n_tokens}"
            )
        if int(lengths.min()) < 1 or int(batch.offsets[-1]) != batch.n_tokens:
            raise InvalidInputError(f"sequence lengths {lengths.tolist()} do not fit the ids")
        if self._max_positions is not None and int(lengths.max()) > self._max_positions:
            raise InvalidInputError(
                f"a sequence of {int(lengths.max())} tokens; the model has {self._max_positions} "
                "positions"
            )
        low, high = int(batch.input_ids.min()), int(batch.input_ids.max())
        if low < 0 or high >= self._n_vocab:
            raise InvalidInputError(
                f"token ids from {low} to {high}; the vocabulary has 0 to {self._n_vocab - 1}"
            )
        if batch.token_types is not None:
            self._check_token_types(batch.token_types, batch.n_tokens)

    def _check_token_types(self, token_types: IntArray, n_tokens: int) -> None:
        n_types = self._typed_tokens.n_types if self._typed_tokens else 1
        if token_types.shape != (n_tokens,):
            raise InvalidInputError(
                f"token types of shape {token_types.shape} for {n_tokens} tokens; give one for each"
            )
        low, high = int(token_types.min()), int(token_types.max())
        if low < 0 or high >= n_types:
            raise InvalidInputError(
                f"token types from {low} to {high}; this model has 0 to {n_types - 1}"
            )

    def _copy_rows(self, batch: MicroBatch) -> FloatArray:
        if not self._pooled:
            rows = lib.llama_get_embeddings(self._handle)
            return np.ctypeslib.as_array(rows, (batch.n_tokens, self._n_out)).copy()
        out = np.empty((batch.n_sequences, self._n_out), dtype=np.float32)
        address, stride = out.ctypes.data, out.strides[0]
        for sequence in range(batch.n_sequences):
            row = lib.llama_get_embeddings_seq(self._handle, sequence)
            if not row:
                raise DecodeError(f"llama.cpp gave no output for sequence {sequence}", status=0)
            ctypes.memmove(address + sequence * stride, row, stride)
        return out

    def close(self) -> None:
        """Free the context. May be called again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            lib.llama_free(handle)


def _point(batch: Any, field: str, array: np.ndarray[Any, Any] | None) -> None:
    """Let a field of a llama_batch point to an array, which has to outlive its use; None: NULL."""
    pointer: Any = type(getattr(batch, field))
    setattr(batch, field, pointer() if array is None else ctypes.cast(array.ctypes.data, pointer))


def _n_out(model: Any, pooling_type: PoolingType) -> int:
    if pooling_type == "rank":
        return int(lib.llama_model_n_cls_out(model))
    return int(lib.llama_model_n_embd_out(model))

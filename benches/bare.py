"""llama.cpp called as directly as Python can: micro-batches built ahead, a loop of llama_encode.

What an engine is held against: no queue, no tokenizer, no checks. The rows are copied out, because
the next call overwrites them.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as lib
from numpy.typing import NDArray

from embellama._llama.context import POOLING_CODES
from embellama.types import MicroBatch, PoolingType

_MAPPED = 1
"""Source: ``enum llama_load_mode`` in llama.h; ModelConfig's default."""

_FLASH_ATTN = {"auto": -1, False: 0, True: 1}


@dataclass(frozen=True)
class Size:
    """How large a context is: what `ContextOptions` and a worker's growth make of the settings."""

    n_tokens: int
    n_sequences: int
    n_threads: int
    flash_attn: bool | str = "auto"


class Prepared:
    """A llama_batch and the arrays it points to."""

    def __init__(self, batch: MicroBatch) -> None:
        n, lengths = batch.n_tokens, np.diff(batch.offsets)
        self.n_sequences = batch.n_sequences
        starts = np.repeat(batch.offsets[:-1], lengths)
        self._ids = np.ascontiguousarray(batch.input_ids, dtype=np.int32)
        self._positions = (np.arange(n) - starts).astype(np.int32)
        self._ones = np.ones(n, dtype=np.int32)
        self._sequences = np.repeat(np.arange(batch.n_sequences), lengths).astype(np.int32)
        self._pointers = (self._sequences.ctypes.data + 4 * np.arange(n)).astype(np.uintp)
        self._outputs = np.ones(n, dtype=np.int8)
        self.batch = lib.llama_batch()
        self.batch.n_tokens = n
        for name, array in (
            ("token", self._ids),
            ("pos", self._positions),
            ("n_seq_id", self._ones),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            kind: Any = type(getattr(self.batch, name))
            setattr(self.batch, name, ctypes.cast(array.ctypes.data, kind))


class BareContext:
    """A llama_context of the size that the engine's has."""

    def __init__(self, model: Any, size: Size, n_embd: int, pooling_type: PoolingType) -> None:
        params = lib.llama_context_default_params()
        n_tokens = -(-size.n_tokens // size.n_sequences) * size.n_sequences
        params.n_ctx = params.n_batch = params.n_ubatch = n_tokens
        params.n_seq_max = size.n_sequences
        params.n_threads = params.n_threads_batch = size.n_threads
        params.pooling_type = POOLING_CODES[pooling_type]
        params.flash_attn_type = _FLASH_ATTN[size.flash_attn]
        params.embeddings = params.kv_unified = params.no_perf = True
        params.offload_kqv = params.op_offload = False
        self.handle = lib.llama_init_from_model(model, params)
        if not self.handle:
            raise RuntimeError(f"no context of {size}")
        self._n_bytes = 4 * n_embd

    def run(self, prepared: Prepared, address: int) -> None:
        """Compute a micro-batch; its rows go to an address."""
        if lib.llama_encode(self.handle, prepared.batch) != 0:
            raise RuntimeError("llama_encode failed")
        for sequence in range(prepared.n_sequences):
            row = lib.llama_get_embeddings_seq(self.handle, sequence)
            ctypes.memmove(address + sequence * self._n_bytes, row, self._n_bytes)


class BareLoop:
    """As many threads as there are contexts, each taking the next micro-batch from one list.

    For encoders on the CPU, such as MiniLM. The threads live as long as the loop,
    as an engine's do.
    """

    def __init__(
        self, path: str, n_contexts: int, size: Size, pooling_type: PoolingType = "mean"
    ) -> None:
        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = _MAPPED
        self._model = lib.llama_model_load_from_file(path.encode(), params)
        self.n_embd = int(lib.llama_model_n_embd_out(self._model))
        self._work: list[tuple[Prepared, int]] = []
        self._next = iter(self._work)
        self._begin = threading.Barrier(n_contexts + 1)
        self._end = threading.Barrier(n_contexts + 1)
        self._failed: list[BaseException] = []
        self._is_over = False
        self._contexts = [
            BareContext(self._model, size, self.n_embd, pooling_type) for _ in range(n_contexts)
        ]
        if lib.llama_get_memory(self._contexts[0].handle):
            raise RuntimeError("the bare loop is for encoders; this model keeps a KV cache")
        self._threads = [
            threading.Thread(target=self._serve, args=(context,), daemon=True)
            for context in self._contexts
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self, context: BareContext) -> None:
        while True:
            self._begin.wait()
            if self._is_over:
                return
            try:
                for prepared, address in self._next:  # a list's iterator serves many threads
                    context.run(prepared, address)
            except Exception as exc:  # noqa: BLE001  # raised by the caller
                self._failed.append(exc)
            self._end.wait()

    def run(self, batches: Sequence[Prepared]) -> NDArray[np.float32]:
        """Compute micro-batches; returns their rows in order, float32 (n_sequences, n_embd)."""
        n_rows = sum(batch.n_sequences for batch in batches)
        out = np.empty((n_rows, self.n_embd), dtype=np.float32)
        address = out.ctypes.data
        self._work = []
        for batch in batches:
            self._work.append((batch, address))
            address += batch.n_sequences * out.strides[0]
        self._next = iter(self._work)
        self._begin.wait()
        self._end.wait()
        if self._failed:
            raise self._failed[0]
        return out

    def run_one(self, prepared: Prepared) -> NDArray[np.float32]:
        """Compute one micro-batch on the calling thread."""
        out = np.empty((prepared.n_sequences, self.n_embd), dtype=np.float32)
        self._contexts[0].run(prepared, out.ctypes.data)
        return out

    def close(self) -> None:
        self._is_over = True
        self._begin.wait()
        for thread in self._threads:
            thread.join()
        for context in self._contexts:
            lib.llama_free(context.handle)
        lib.llama_model_free(self._model)

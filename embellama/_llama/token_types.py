"""Inputs of tokens whose type is not 0, which llama.cpp has no way to say.

A model of the BERT family adds one of a few *token type* rows to each token's embedding, so that
the second text of a pair can be told from the first. llama.cpp always adds the row of type 0. A
batch may carry embeddings in place of ids, though, and what llama.cpp adds to those is the same: a
token ``id`` of type ``t`` is right when it comes in as ``token[id] + type[t] - type[0]``.

Source: ``llama_model_bert::graph`` in llama.cpp's models/bert.cpp ("token types are hardcoded to
zero"); https://github.com/ggml-org/llama.cpp/pull/21729 would add them to llama_batch.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from embellama.errors import EmbeddingGenerationError, ModelLoadError
from embellama.gguf import GGUFMetadata, TensorPlace
from embellama.types import FloatArray, IntArray


def open_token_types(metadata: GGUFMetadata) -> TypedTokens | None:
    """Map the two tables of a model that has several token types; None for all others.

    Raises:
        ModelLoadError: A file is no longer what its header said.
    """
    tokens, types = metadata.token_table, metadata.token_type_table
    if tokens is None or types is None or types.shape[0] < 2 or not tokens.shape[0]:
        return None
    return TypedTokens(tokens, types)


class TypedTokens:
    """Embeddings of tokens of any type. Safe to use from any thread."""

    def __init__(self, tokens: TensorPlace, types: TensorPlace) -> None:
        self._tokens = _Rows(tokens)
        self._types = _Rows(types)
        self.n_types, self.n_embd = types.shape

    @cached_property
    def _beyond_type_0(self) -> FloatArray:
        rows = self._types.read(np.arange(self.n_types, dtype=np.int32))
        beyond: FloatArray = rows - rows[0]
        return beyond

    def read(self, input_ids: IntArray, token_types: IntArray) -> FloatArray:
        """Read the embeddings of tokens, less what llama.cpp adds to them.

        Args:
            input_ids: int32 (n_tokens,), ids of the vocabulary.
            token_types: int32 (n_tokens,), each from 0 to ``n_types`` - 1.

        Returns:
            float32 (n_tokens, n_embd), C-contiguous, owned by the caller.

        Raises:
            EmbeddingGenerationError: The ``gguf`` package cannot read rows of this type.
        """
        rows = self._tokens.read(input_ids)
        rows += self._beyond_type_0[token_types]
        return rows


class _Rows:
    """A table in a file, mapped: only the pages of the rows that are asked for are read."""

    def __init__(self, table: TensorPlace) -> None:
        self._table = table
        n_rows = table.shape[0]
        shape = (n_rows, table.size_bytes // n_rows)
        try:
            # mapped while the file is the one being loaded: another under its name changes nothing
            self._raw: NDArray[np.uint8] = np.memmap(
                table.path, mode="r", dtype=np.uint8, offset=table.offset, shape=shape
            )
        except (OSError, ValueError) as exc:
            raise ModelLoadError(
                f"{str(table.path)!r} changed while it was being loaded ({exc}); load it again"
            ) from exc

    def read(self, indices: IntArray) -> FloatArray:
        """Return float32 (n, n_embd), the rows at some indices."""
        raw = np.ascontiguousarray(self._raw[indices])
        try:
            rows = dequantize(raw, GGMLQuantizationType[self._table.type_name])
        except (KeyError, NotImplementedError) as exc:
            raise EmbeddingGenerationError(
                f"{str(self._table.path)!r} has embeddings of type {self._table.type_name}, of "
                "which the gguf package cannot read single rows; pairs of texts need a file of "
                "another type, such as F16 or Q8_0, or a newer gguf package"
            ) from exc
        return np.asarray(rows, dtype=np.float32)

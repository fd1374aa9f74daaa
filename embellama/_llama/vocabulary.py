"""Text to token ids with the vocabulary of a model file."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from embellama._llama.binding import lib
from embellama.errors import GGUFFormatError, InputTooLongError, InvalidInputError
from embellama.types import IntArray

_MAX_TEXT_BYTES = 2**31 - 1
"""Source: ``int32_t text_len`` of llama_tokenize."""

_WORDPIECE = 3
"""Source: ``LLAMA_VOCAB_TYPE_WPM`` in llama.h."""


class LlamaVocabulary:
    """The vocabulary of a loaded model. Safe to use from any thread; lives as long as its model."""

    def __init__(self, model: Any) -> None:
        self._vocab = lib.llama_model_get_vocab(model)
        self._buffers = threading.local()
        self.n_tokens = int(lib.llama_vocab_n_tokens(self._vocab))
        self._check_special_tokens()

    def _check_special_tokens(self) -> None:
        # llama_tokenize asserts, and so ends the process, where a WordPiece file lacks one of these
        if lib.llama_vocab_type(self._vocab) != _WORDPIECE:
            return
        for name in ("bos", "sep"):
            token = int(getattr(lib, f"llama_vocab_{name}")(self._vocab))
            if not 0 <= token < self.n_tokens:
                raise GGUFFormatError(
                    f"the {name} token id is {token}, but the vocabulary has ids 0 to "
                    f"{self.n_tokens - 1}; convert the model again"
                )

    def tokenize(self, text: str, *, add_special: bool = True) -> IntArray:
        """Tokenize a text; special tokens written inside it are taken as text.

        Args:
            text: Any text that UTF-8 can carry.
            add_special: Put the model's own special tokens around it.

        Returns:
            int32 (n_tokens,), owned by the caller.

        Raises:
            InvalidInputError: The text has a lone surrogate, which UTF-8 cannot carry.
            InputTooLongError: The text has more bytes than llama.cpp can count.
        """
        data = _utf8(text)
        capacity = len(data) + 16
        buffer = self._buffer(capacity)
        count = self._tokenize_into(data, buffer, add_special)
        if count < 0:  # some vocabularies give more tokens than bytes; llama.cpp says how many
            buffer = self._buffer(-count)
            count = self._tokenize_into(data, buffer, add_special)
        return np.frombuffer(buffer, dtype=np.int32, count=count).copy()

    def pieces(self, ids: IntArray) -> list[bytes]:
        """Return the bytes each token stands for; see `Vocabulary.pieces`.

        Args:
            ids: int32 (n_tokens,), each in the vocabulary.
        """
        return [self._piece(int(token)) for token in ids]

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = int(lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False))
        if count < 0:  # longer: llama.cpp says how long
            buffer = ctypes.create_string_buffer(-count)
            count = int(lib.llama_token_to_piece(self._vocab, token, buffer, -count, 0, False))
        return buffer.raw[:count]

    def _tokenize_into(self, data: bytes, buffer: Any, add_special: bool) -> int:
        return int(
            lib.llama_tokenize(
                self._vocab, data, len(data), buffer, len(buffer), add_special, False
            )
        )

    def _buffer(self, capacity: int) -> Any:
        """Return this thread's buffer, made larger where needed."""
        buffer = getattr(self._buffers, "ids", None)
        if buffer is None or len(buffer) < capacity:
            buffer = (ctypes.c_int32 * max(4096, capacity))()
            if capacity <= 1 << 20:  # a huge text's buffer goes with it
                self._buffers.ids = buffer
        return buffer


def _utf8(text: str) -> bytes:
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise InvalidInputError(
            f"character {exc.start} is the lone surrogate U+{ord(text[exc.start]):04X}, which is "
            "not text; decode the source with errors='replace'"
        ) from exc
    if len(data) > _MAX_TEXT_BYTES:
        raise InputTooLongError(
            f"the text has {len(data)} bytes; llama.cpp counts to {_MAX_TEXT_BYTES}; split it",
            indices=(0,),
            n_tokens=(len(data),),
            limit=_MAX_TEXT_BYTES,
        )
    return data

"""Control tokens such as ``<|im_end|>``: which of them a template spells."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from embellama._llama.binding import lib

_CONTROL = 1 << 3
"""Source: ``LLAMA_TOKEN_ATTR_CONTROL`` in llama.h."""


def control_tokens_in(model: Any, text: str) -> Mapping[str, int]:
    """Return the ids of a vocabulary's control tokens that a trusted text spells.

    What users write goes through `Vocabulary.tokenize`, which takes such spellings for text.
    """
    vocab = lib.llama_model_get_vocab(model)
    data = text.encode()
    ids = (ctypes.c_int32 * (len(data) + 16))()
    count = lib.llama_tokenize(vocab, data, len(data), ids, len(ids), False, True)
    return {
        lib.llama_vocab_get_text(vocab, token).decode(errors="replace"): token
        for token in dict.fromkeys(ids[: max(0, count)])
        if lib.llama_vocab_get_attr(vocab, token) & _CONTROL
    }

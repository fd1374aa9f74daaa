"""What a cached vector is found by: a digest of everything it depends on."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from embellama.types import IntArray

KEY_BYTES: Final = 32
"""Length of a key. Two texts share one with a probability of 2**-256."""

_PERSON: Final = b"embellama.key.1"
_LENGTH_BYTES: Final = 8


def cache_key(*, fingerprint: str, prompt: str, overflow: str, text: str | IntArray) -> bytes:
    """Compute the key of a text's vector.

    Every part goes in behind its length, so that no two sets of parts give the same bytes; a text
    and token ids never share a key.

    Args:
        fingerprint: The model's, which stands for weights, tokenizer, pooling and vector version.
        prompt: What is put in front of the text; may be empty.
        overflow: What happens to a text over the limit, with its settings.
        text: The text without its prompt; or int32 (n_tokens,) token ids.

    Returns:
        `KEY_BYTES` bytes.
    """
    return cache_keys(fingerprint=fingerprint, prompt=prompt, overflow=overflow, texts=[text])[0]


def cache_keys(
    *, fingerprint: str, prompt: str, overflow: str, texts: Iterable[str | IntArray]
) -> list[bytes]:
    """Compute the `cache_key` of each of many texts; what they share is digested once."""
    shared = blake2b(digest_size=KEY_BYTES, person=_PERSON)
    for part in (fingerprint, prompt, overflow):
        shared.update(_with_length(part.encode()))
    keys = []
    for text in texts:
        digest = shared.copy()
        if isinstance(text, str):
            # a lone surrogate has a key too; its text is refused later, with its place
            digest.update(b"text" + _with_length(text.encode("utf-8", "surrogatepass")))
        else:
            ids = np.ascontiguousarray(text, dtype="<i4")
            digest.update(b"ids " + _with_length(ids.tobytes()))
        keys.append(digest.digest())
    return keys


def _with_length(part: bytes) -> bytes:
    return len(part).to_bytes(_LENGTH_BYTES, "little") + part

"""Vectors that are a function of their number, so that a wrong one is found out."""

import numpy as np

from embellama.cache import cache_key
from embellama.types import CachedVector


def key_of(number: int) -> bytes:
    return cache_key(fingerprint="f", prompt="", overflow="error", text=f"text {number}")


def vector_of(number: int, n_embd: int = 384) -> np.ndarray:
    steps = np.arange(1, n_embd + 1, dtype=np.int64)
    return ((steps * (number * 2654435761 % 2**32)) % 65521).astype(np.float32)


def value_of(number: int, n_embd: int = 384) -> CachedVector:
    return CachedVector(vector_of(number, n_embd), number % 500 + 1, number % 3, number % 2 + 1)


def items_of(numbers, n_embd: int = 384) -> list[tuple[bytes, CachedVector]]:
    return [(key_of(number), value_of(number, n_embd)) for number in numbers]


def keys_of(numbers) -> list[bytes]:
    return [key_of(number) for number in numbers]


def is_right(value: CachedVector, number: int) -> bool:
    """Compare everything with what was put under a number."""
    right = value_of(number, len(value.vector))
    return np.array_equal(value.vector, right.vector) and (
        value.n_tokens,
        value.n_dropped,
        value.n_windows,
    ) == (right.n_tokens, right.n_dropped, right.n_windows)


def found_in(cache, numbers) -> list[int]:
    """Give the numbers a cache has, after a check of what it returns for them."""
    numbers = list(numbers)
    values = cache.get_many(keys_of(numbers))
    found = [(number, value) for number, value in zip(numbers, values, strict=True) if value]
    assert all(is_right(value, number) for number, value in found)
    return [number for number, _ in found]

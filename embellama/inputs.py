"""What a caller gave, checked before any inference; every offending text is named."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from embellama.errors import (
    ConfigurationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.tokenization import Tokenizer, map_texts
from embellama.types import IntArray

_NAMED = 10
"""Offending texts spelled out in a message; the error's fields hold all."""


def check_text(text: object) -> str:
    """Return the text, or raise what a wrong type deserves.

    Raises:
        InvalidInputTypeError: It is not a str.
    """
    if isinstance(text, str):
        return text
    raise InvalidInputTypeError(f"a text has to be a str, not {_described(text)}", indices=(0,))


def check_texts(texts: object, *, first_index: int = 0) -> Sequence[str]:
    """Return the texts as a sequence of str.

    Args:
        texts: What the caller gave: a list, a tuple, an array or column of str.
        first_index: The index of the first one, for the messages.

    Raises:
        InvalidInputTypeError: It is one str, or no sequence, or holds something else than str.
    """
    check_not_one_text(texts)
    if not (isinstance(texts, Sequence) or getattr(texts, "ndim", None) == 1):
        raise InvalidInputTypeError(
            f"texts has to be a sequence of str, not {_described(texts)}; "
            "write list(texts), or call embed_stream for an iterator"
        )
    items: Sequence[Any] = (
        texts if isinstance(texts, list | tuple) else list(cast("Iterable[Any]", texts))
    )
    wrong = [index for index, item in enumerate(items) if not isinstance(item, str)]
    if wrong:
        named = [f"{first_index + index} is {_described(items[index])}" for index in wrong]
        raise InvalidInputTypeError(
            f"texts have to be str: {_listed(named)}",
            indices=[first_index + index for index in wrong],
        )
    return items


def is_blank(text: str) -> bool:
    """Tell whether a text has nothing to see: white space, controls and format characters only."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def check_not_one_text(texts: object) -> None:
    """Refuse a single text where many are wanted: it would be taken for its letters.

    Raises:
        InvalidInputTypeError: It is a str or bytes, or cannot be iterated over.
    """
    if isinstance(texts, str | bytes | bytearray):
        raise InvalidInputTypeError(
            f"texts has to be a sequence of str, not one {type(texts).__name__}; "
            "write [text], or call embed for a single text"
        )
    if not _iterable(texts):
        raise InvalidInputTypeError(f"texts has to be a sequence of str, not {_described(texts)}")


def _iterable(value: object) -> bool:
    return isinstance(value, Iterable)


def _described(value: object) -> str:
    hint = "; decode it first" if isinstance(value, bytes | bytearray) else ""
    return f"{'None' if value is None else type(value).__name__}{hint}"


def _listed(parts: Sequence[str]) -> str:
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(parts[:_NAMED]) + more


@dataclass
class _Faults:
    """What is wrong with the texts of one call, by kind."""

    empty: list[int] = field(default_factory=list)
    too_long: dict[int, int] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def raise_any(self, limit: int) -> None:
        """Raise one error that names every offending text; nothing if there is none."""
        messages = []
        if self.empty:
            messages.append(
                f"nothing to embed in text {_listed([str(i) for i in self.empty])}: empty, blank, "
                "or only characters that the model drops; leave them out"
            )
        if self.too_long:
            named = [f"{index} ({count} tokens)" for index, count in self.too_long.items()]
            messages.append(
                f"over the limit of {limit} tokens (special tokens included): text "
                f"{_listed(named)}; split them"
            )
        if self.unreadable:
            named = [f"{index} ({why})" for index, why in self.unreadable.items()]
            messages.append(f"cannot be tokenized: text {_listed(named)}")
        if not messages:
            return
        message = "; ".join(messages)
        indices = sorted({*self.empty, *self.too_long, *self.unreadable})
        if len(messages) > 1 or self.unreadable:
            raise InvalidInputError(message, indices=indices)
        if self.empty:
            raise EmptyInputError(message, indices=indices)
        raise InputTooLongError(
            message, indices=indices, n_tokens=list(self.too_long.values()), limit=limit
        )


def encode_suspects(
    texts: Sequence[str], tokenizer: Tokenizer, *, limit: int, n_jobs: int, first_index: int = 0
) -> dict[int, IntArray]:
    """Tokenize the texts that might be empty or too long, and refuse those that are.

    The others, plain text shorter than the limit in bytes, can be tokenized while inference runs.

    Args:
        texts: The texts of one call.
        tokenizer: The model's.
        limit: Tokens a text may have, special tokens included.
        n_jobs: Threads to tokenize on.
        first_index: The index of the first text, for the messages.

    Returns:
        The ids of the tokenized texts, by their position in ``texts``.

    Raises:
        EmptyInputError, InputTooLongError: Naming every such text; InvalidInputError where there
            are several kinds of faults or a text is not valid Unicode.
    """
    suspects = [i for i, text in enumerate(texts) if not tokenizer.surely_fits(text, limit)]

    def encode(text: str) -> IntArray | InvalidInputError | None:
        if is_blank(text):
            return None
        try:
            return tokenizer.encode(text)
        except InvalidInputError as exc:
            return exc

    results = map_texts(encode, [texts[index] for index in suspects], n_jobs=n_jobs)
    faults, encoded = _Faults(), dict[int, IntArray]()
    for position, ids in zip(suspects, results, strict=True):
        index = first_index + position
        if isinstance(ids, InvalidInputError):
            faults.unreadable[index] = str(ids)
        elif ids is None or len(ids) <= tokenizer.n_special:
            faults.empty.append(index)
        elif len(ids) > limit:
            faults.too_long[index] = len(ids)
        else:
            encoded[position] = ids
    faults.raise_any(limit)
    return encoded


def check_overflow(overflow: object) -> None:
    """Refuse a policy for long texts that does not exist.

    Raises:
        ConfigurationError: It is not ``"error"``.
    """
    if overflow != "error":
        raise ConfigurationError(f"overflow = {overflow!r}; the one policy so far is 'error'")

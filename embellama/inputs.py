"""What a caller gave, checked before any inference; every offending text is named."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from embellama.encoding import Encoding, InputEncoder, TextOrIds
from embellama.errors import (
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.tokenization import map_inputs
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


def check_input(item: object, *, n_vocab: int) -> TextOrIds:
    """Return a text as it is, or token ids as int32 (n_tokens,).

    Args:
        item: A str, or a sequence or array of int.
        n_vocab: Ids have to be below this.

    Raises:
        InvalidInputTypeError: It is neither.
        InvalidInputError: An id is out of range.
        EmptyInputError: There are no ids.
    """
    return item if isinstance(item, str) else check_inputs([item], n_vocab=n_vocab)[0]


def check_inputs(items: object, *, n_vocab: int, first_index: int = 0) -> Sequence[TextOrIds]:
    """Return texts as they are and token ids as int32 (n_tokens,) arrays.

    Args:
        items: What the caller gave: a sequence of str, of sequences of int, or of both.
        n_vocab: Ids have to be below this.
        first_index: The index of the first one, for the messages.

    Raises:
        InvalidInputTypeError: It is one str, or no sequence, or holds anything else.
        InvalidInputError: An id is out of range; the message names the input and the id.
        EmptyInputError: An input has no ids.
    """
    check_not_one_text(items)
    if isinstance(items, np.ndarray) and (
        items.ndim == 1 or np.issubdtype(items.dtype, np.integer)
    ):
        items = list(items) if items.ndim else items
    if isinstance(items, list | tuple) and any(_is_ids(item) for item in items):
        return [
            _checked_ids(item, first_index + index, n_vocab) if _is_ids(item) else item
            for index, item in enumerate(_all_of_type(items, first_index))
        ]
    return check_texts(items, first_index=first_index)


def _is_ids(item: object) -> bool:
    return isinstance(item, Sequence | np.ndarray) and not isinstance(item, str | bytes | bytearray)


def _all_of_type(items: Sequence[Any], first_index: int) -> Sequence[Any]:
    wrong = [
        first_index + index
        for index, item in enumerate(items)
        if not (isinstance(item, str) or _is_ids(item))
    ]
    if wrong:
        named = [f"{index} is {_described(items[index - first_index])}" for index in wrong]
        raise InvalidInputTypeError(
            f"inputs have to be str or sequences of token ids: {listed(named)}", indices=wrong
        )
    return items


def _checked_ids(item: Any, index: int, n_vocab: int) -> IntArray:
    try:
        ids = np.asarray(item)
    except ValueError as exc:  # rows of different lengths
        raise _not_ids(index, f"nested ({exc})") from exc
    if ids.ndim == 1 and not len(ids):
        raise EmptyInputError(f"input {index} has no token ids; leave it out", indices=(index,))
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise _not_ids(index, f"of type {ids.dtype} and shape {ids.shape}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n_vocab:
        raise InvalidInputError(
            f"input {index} has the token id {low if low < 0 else high}; the model's vocabulary "
            f"has 0 to {n_vocab - 1}",
            indices=(index,),
        )
    checked: IntArray = ids.astype(np.int32)
    return checked


def _not_ids(index: int, what: str) -> InvalidInputTypeError:
    return InvalidInputTypeError(
        f"input {index} is {what}; token ids are one sequence of int, such as tokenize returns",
        indices=(index,),
    )


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
            f"texts have to be str: {listed(named)}",
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


def listed(parts: Sequence[int | str]) -> str:
    """Spell out the first of what a message is about, and count the others."""
    more = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(map(str, parts[:_NAMED])) + more


@dataclass
class _Faults:
    """What is wrong with the texts of one call, by kind."""

    empty: list[int] = field(default_factory=list)
    too_long: dict[int, int] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def raise_any(self, limit: int) -> None:
        """Raise one error that names every offending text; nothing if there is none."""
        self.empty.sort()
        self.too_long = dict(sorted(self.too_long.items()))
        messages = []
        if self.empty:
            messages.append(
                f"nothing to embed in text {listed(self.empty)}: empty, blank, "
                "or only characters that the model drops; leave them out"
            )
        if self.too_long:
            named = [f"{index} ({count} tokens)" for index, count in self.too_long.items()]
            messages.append(
                f"over the limit of {limit} tokens (special tokens included): text "
                f"{listed(named)}; split them, or choose overflow='truncate' or 'window'"
            )
        if self.unreadable:
            named = [f"{index} ({why})" for index, why in self.unreadable.items()]
            messages.append(f"cannot be tokenized: text {listed(named)}")
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
    items: Sequence[TextOrIds],
    encoder: InputEncoder,
    *,
    n_jobs: int,
    places: Callable[[int], Sequence[int]] = lambda position: (position,),
    check: Callable[[], None] = lambda: None,
) -> dict[int, Encoding]:
    """Encode the inputs that might be empty or too long, and refuse those that are.

    The others, plain text shorter than the limit in bytes, can be tokenized while inference runs.

    Args:
        items: The checked inputs of one call.
        encoder: Encodes them as the call wants it.
        n_jobs: Threads to tokenize on.
        places: Where the caller has the input of a position, for the messages; several places
            where it is repeated.
        check: Raises when nobody waits for them any more.

    Returns:
        The encodings, by their position in ``items``.

    Raises:
        EmptyInputError, InputTooLongError: Naming every such text; InvalidInputError where there
            are several kinds of faults or a text is not valid Unicode.
    """
    suspects = [index for index, item in enumerate(items) if not encoder.surely_fits(item)]
    if not suspects:
        return {}

    def encode(item: TextOrIds) -> Encoding | InvalidInputError | None:
        check()
        if isinstance(item, str) and is_blank(item):
            return None
        try:
            return encoder.encode(item)
        except InvalidInputError as exc:
            return exc

    results = map_inputs(encode, [items[index] for index in suspects], n_jobs=n_jobs)
    faults, encoded = _Faults(), dict[int, Encoding]()
    for position, result in zip(suspects, results, strict=True):
        if isinstance(result, InvalidInputError):
            faults.unreadable.update(dict.fromkeys(places(position), str(result)))
        elif result is None:
            faults.empty.extend(places(position))
        elif encoder.overflow == "error" and result.n_tokens > encoder.limit:
            faults.too_long.update(dict.fromkeys(places(position), result.n_tokens))
        else:
            encoded[position] = result
    faults.raise_any(encoder.limit)
    return encoded

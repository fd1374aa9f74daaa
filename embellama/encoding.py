"""Inputs to sequences of ids: the prompt in front, and what becomes of those over the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

from embellama.errors import ConfigurationError, InvalidInputError
from embellama.tokenization import Tokenizer
from embellama.types import IntArray, Overflow, TruncateSide

TextOrIds: TypeAlias = str | IntArray
"""A checked input: a text, or the ids of one, special tokens included."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One input, ready for inference.

    Attributes:
        windows: int32 (n_tokens,) ids of each sequence to compute; one unless the input was over
            the limit and is embedded in windows.
        n_own: Tokens of each window that are the input's own, neither special nor prompt.
        n_tokens: Tokens of the whole input with prompt and special tokens, before any cut.
        n_dropped: Tokens that a cut took away.
    """

    windows: tuple[IntArray, ...]
    n_own: tuple[int, ...]
    n_tokens: int
    n_dropped: int = 0


@dataclass(frozen=True)
class InputEncoder:
    """Turns the inputs of one call into sequences within the limit. Safe from any thread.

    Attributes:
        tokenizer: The model's.
        prompt: Put before every text.
        limit: Most tokens of a sequence, special tokens and prompt included.
        overflow: What happens to an input over the limit.
        truncate_side: Where `overflow` ``"truncate"`` cuts.
        window_overlap: Own tokens that neighbouring windows share.
    """

    tokenizer: Tokenizer
    prompt: str = ""
    limit: int = 512
    overflow: Overflow = "error"
    truncate_side: TruncateSide = "right"
    window_overlap: int = 0

    def check(self) -> None:
        """Refuse settings under which no text could be embedded.

        Raises:
            ConfigurationError: No room beside the special tokens and the prompt, or windows that
                would not advance.
        """
        room, used = self.room, len(self.prompt_ids)
        if room < 1:
            raise ConfigurationError(
                f"a limit of {self.limit} tokens leaves no room for text beside "
                f"{self.tokenizer.n_special} special tokens and {used} of the prompt; shorten the "
                f"prompt, or raise max_tokens, and with it n_ctx if the model has the positions, "
                f"to more than {self.tokenizer.n_special + used}"
            )
        if self.overflow == "window" and not 0 <= self.window_overlap < room:
            raise ConfigurationError(
                f"window_overlap = {self.window_overlap}; it has to be 0 to {room - 1}, less than "
                f"the {room} tokens of text that a window holds"
            )

    @cached_property
    def prompt_ids(self) -> IntArray:
        """int32 ids of the prompt alone, without special tokens."""
        return self.tokenizer.encode(self.prompt, add_special=False) if self.prompt else _NONE

    @property
    def room(self) -> int:
        """Own tokens that fit into one sequence."""
        return self.limit - self.tokenizer.n_special - len(self.prompt_ids)

    def surely_fits(self, item: TextOrIds) -> bool:
        """Tell without tokenizing that an input is a text, not empty, within the limit."""
        if not isinstance(item, str):
            return False
        return self.tokenizer.surely_fits(item, self.limit - len(self.prompt)) and (
            not self.prompt or self.prompt.isascii()
        )

    def encode(self, item: TextOrIds) -> Encoding | None:
        """Encode one input; cut or divide it where it is over the limit.

        Returns:
            None if the input has no token of its own. Under ``overflow="error"`` the one sequence
            may be longer than the limit, for the caller to refuse with all others.

        Raises:
            InvalidInputError: The text cannot be tokenized.
        """
        if isinstance(item, str):
            ids = self.tokenizer.encode(self.prompt + item)
            n_prompt = self._n_prompt(ids) if self.prompt else 0
            n_before, n_after = len(self.tokenizer.prefix), len(self.tokenizer.suffix)
        else:
            ids, n_prompt = self._without_prompt(item), 0
            n_before, n_after = self._n_special(ids)
        head, tail = n_before + n_prompt, len(ids) - n_after
        n_own = tail - head
        if n_own == 0 and n_prompt and self._has_tokens(item):
            # one unknown word with the prompt's end: that token is the text's
            head, n_own = head - 1, 1
        if n_own < 1:
            return None
        if len(ids) <= self.limit or self.overflow == "error":
            return Encoding((ids,), (n_own,), len(ids))
        room = self.limit - head - n_after
        if self.overflow == "truncate":
            return self._truncated(ids, head, tail, room)
        return self._windows(ids, head, tail, room)

    def _without_prompt(self, ids: IntArray) -> IntArray:
        if self.prompt:
            raise InvalidInputError(
                f"token ids, before which the prompt {self.prompt!r} cannot be put; give the text, "
                "or pass prompt='' with ids that have it in front"
            )
        return ids

    def _has_tokens(self, item: TextOrIds) -> bool:
        return isinstance(item, str) and len(self.tokenizer.encode(item, add_special=False)) > 0

    def _n_prompt(self, ids: IntArray) -> int:
        """Count the prompt's tokens at the beginning of a text's.

        Where the prompt's end and the text's beginning melt into one token, that one is the
        text's: a cut from the left may take it, and the rest of the prompt stays.
        """
        start = len(self.tokenizer.prefix)
        found = ids[start : start + len(self.prompt_ids)]
        same = found == self.prompt_ids[: len(found)]
        return len(found) if same.all() else int(np.argmin(same))

    def _n_special(self, ids: IntArray) -> tuple[int, int]:
        """Count the special tokens at both ends; ids given by the caller may lack them."""
        before, after = self.tokenizer.prefix, self.tokenizer.suffix
        starts = len(ids) >= len(before) and np.array_equal(ids[: len(before)], before)
        n_before = len(before) if starts else 0
        rest = ids[n_before:]
        ends = len(rest) >= len(after) and np.array_equal(rest[len(rest) - len(after) :], after)
        return n_before, len(after) if ends else 0

    def _truncated(self, ids: IntArray, head: int, tail: int, room: int) -> Encoding:
        kept = ids[tail - room : tail] if self.truncate_side == "left" else ids[head : head + room]
        cut = np.concatenate([ids[:head], kept, ids[tail:]])
        return Encoding((cut,), (room,), len(ids), len(ids) - len(cut))

    def _windows(self, ids: IntArray, head: int, tail: int, room: int) -> Encoding:
        spans = window_spans(tail - head, size=room, overlap=self.window_overlap)
        windows = tuple(
            np.concatenate([ids[:head], ids[head + start : head + stop], ids[tail:]])
            for start, stop in spans
        )
        return Encoding(windows, tuple(stop - start for start, stop in spans), len(ids))


_NONE: IntArray = np.empty(0, dtype=np.int32)


def window_spans(n_tokens: int, *, size: int, overlap: int) -> Sequence[tuple[int, int]]:
    """Divide tokens into overlapping windows: all of one size but the last, which ends the text.

    Args:
        n_tokens: Tokens to divide.
        size: Tokens of a window.
        overlap: Tokens that a window shares with the one before; less than ``size``.

    Returns:
        (start, stop) of each window.
    """
    spans = [(0, min(size, n_tokens))]
    while spans[-1][1] < n_tokens:
        start = spans[-1][0] + size - overlap
        spans.append((start, min(start + size, n_tokens)))
    return spans

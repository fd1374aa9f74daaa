"""Which characters of a text a token stands for, worked out from the bytes of its piece."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import TypeAlias

from embellama.wordpiece import WordPieceNormalizer, is_punctuation

Span: TypeAlias = tuple[int, int]
"""(start, stop) of characters."""

_SPACE = b" \t\n\r"


def character_map(vocab_kind: str, normalizer: object) -> Callable[[str], str]:
    """Choose what one character becomes on its way into a model's vocabulary.

    Unigram vocabularies bring text into compatibility form; their own tables differ from Unicode's
    in places, and there no span is found.
    """
    if isinstance(normalizer, WordPieceNormalizer):
        return normalizer
    if vocab_kind == "t5":
        return lambda char: unicodedata.normalize("NFKC", char)
    return lambda char: char


class TextAligner:
    """Walks along a text, token after token.

    Args:
        text: The text that was tokenized.
        character_map: What one character becomes before the vocabulary sees it.
        unknown_is_a_word: Whether an unknown token stands for a whole word, as in WordPiece.
    """

    def __init__(
        self, text: str, character_map: Callable[[str], str], *, unknown_is_a_word: bool
    ) -> None:
        data = bytearray()
        owners: list[int] = []  # of each byte, the character it comes from
        for index, char in enumerate(text):
            mapped = character_map(char).encode("utf-8", "surrogatepass")
            data += mapped
            owners += [index] * len(mapped)
        self._data = bytes(data)
        self._owners = owners
        self._unknown_is_a_word = unknown_is_a_word
        self._place = 0
        self._is_lost = False

    def span(self, piece: bytes, *, unknown: bool) -> Span | None:
        """Return the characters of the next token, or None where they cannot be told.

        Args:
            piece: Its bytes; a leading space marks the beginning of a word.
            unknown: Whether it is the unknown token, which has no piece of its own.
        """
        if unknown:
            return self._unknown()
        bare = piece.lstrip(b" ")
        if not bare:
            return (
                self._take(piece) if piece and self._data.startswith(piece, self._place) else None
            )
        start = self._place
        while start < len(self._data) and self._data[start] in _SPACE:
            start += 1
        if self._is_lost:
            start = self._data.find(bare, start)
        for place in (start, self._place):
            if place >= 0 and self._data.startswith(bare, place):
                self._place, self._is_lost = place, False
                return self._take(bare)
        return None

    def _take(self, piece: bytes) -> Span:
        start, self._place = self._place, self._place + len(piece)
        return self._owners[start], self._owners[self._place - 1] + 1

    def _unknown(self) -> Span | None:
        if not self._unknown_is_a_word:
            self._is_lost = True  # it may stand for any number of characters
            return None
        rest = self._data[self._place :].decode("utf-8", "surrogatepass")
        word = rest.lstrip()
        self._place += len(rest[: len(rest) - len(word)].encode())
        stop = next(
            (i for i, char in enumerate(word) if char.isspace() or is_punctuation(char)), len(word)
        )
        taken = word[: max(stop, 1)].encode("utf-8", "surrogatepass")
        return self._take(taken) if taken else None


def token_spans(
    pieces: Sequence[bytes], unknown: Sequence[bool], aligner: TextAligner
) -> list[Span | None]:
    """Return the span of each token of a text, in order; None for special tokens."""
    return [
        aligner.span(piece, unknown=is_unknown)
        for piece, is_unknown in zip(pieces, unknown, strict=True)
    ]

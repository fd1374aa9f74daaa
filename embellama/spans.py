"""Which characters of a text a token stands for, worked out from the bytes of its piece."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from embellama.wordpiece import is_punctuation

Span: TypeAlias = tuple[int, int]
"""(start, stop) of characters."""

_SPACE = b" \t\n\r"
_ANY_SPACE = re.compile(rb"[ \t\n\r]")
_WORD_START = "\u2581"  # in a text, SentencePiece's mark of a space is a space
_UNIGRAM_DROPPED = frozenset(map(chr, (*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F)))
_UNIGRAM_SPACES = "\t\n\x0c\r\u1680\u2028\u2029\u200b\u200e\u200f\ufeff\ufffd" + _WORD_START
"""Source: ``nmt_nfkc`` in SentencePiece's builder.cc, which drops the former and makes spaces of
these."""

_FIRST_COMPOSED = "\u0300"
"""No character below joins the one before it. Source: ``NFC_Quick_Check`` of Unicode."""


def character_map(vocab_kind: str, normalizer: Callable[[str], str]) -> Callable[[str], str]:
    """Choose what a character, or a letter and its marks, becomes on its way into a vocabulary.

    Unigram vocabularies have tables of their own, which differ from Unicode's compatibility form in
    places: there no span is found.
    """
    if vocab_kind == "t5":
        return _unigram_form
    if vocab_kind == "llama":
        return lambda part: part.replace(_WORD_START, " ")
    return normalizer


def _unigram_form(part: str) -> str:
    kept = [
        " " if char in _UNIGRAM_SPACES else char for char in part if char not in _UNIGRAM_DROPPED
    ]
    return unicodedata.normalize("NFKC", "".join(kept))


def _parts(text: str, character_map: Callable[[str], str]) -> Iterator[Span]:
    """Divide a text into parts that can be mapped one by one: letters with their marks."""
    if text.isascii() or character_map("e\u0301") != "é":  # nothing is composed
        yield from ((place, place + 1) for place in range(len(text)))
        return
    start = 0
    for place in range(1, len(text)):
        char, before = text[place], text[start:place]
        if char >= _FIRST_COMPOSED and (
            unicodedata.combining(char)
            or character_map(before + char) != character_map(before) + character_map(char)
        ):
            continue
        yield start, place
        start = place
    yield start, len(text)


def _mapped(text: str, character_map: Callable[[str], str]) -> Iterator[tuple[str, Span]]:
    """Yield what the vocabulary sees, part after part, and the characters it comes from."""
    for start, stop in _parts(text, character_map):
        each = [character_map(char) for char in text[start:stop]]
        together = character_map(text[start:stop]) if stop - start > 1 else each[0]
        if "".join(each) == together:
            yield from ((part, (index, index + 1)) for index, part in enumerate(each, start))
        else:
            yield together, (start, stop)


def _may_be_dropped(char: str) -> bool:
    known_space = char in " \t\n\r"
    return not known_space and (not char.isprintable() or char in _UNIGRAM_SPACES)


class TextAligner:
    """Walks along a text, token after token. Where it cannot be sure, it says so from there on.

    Args:
        text: The text that was tokenized.
        character_map: What one part of it becomes before the vocabulary sees it.
        unknown_is_a_word: Whether an unknown token stands for a whole word, as in WordPiece.
    """

    def __init__(
        self, text: str, character_map: Callable[[str], str], *, unknown_is_a_word: bool
    ) -> None:
        data = bytearray()
        owners: list[Span] = []  # of each byte, the characters it comes from
        for mapped, span in _mapped(text, character_map):
            raw = mapped.encode("utf-8", "surrogatepass")
            data += raw
            owners += [span] * len(raw)
        self._text = text
        self._data = bytes(data)
        self._owners = owners
        self._unknown_is_a_word = unknown_is_a_word
        self._place = 0
        self._known_to = 0  # the character after the last that a token other than spaces has
        self._after_unknown = False
        self._is_lost = False

    def span(self, piece: bytes, *, unknown: bool) -> Span | None:
        """Return the characters of the next token, or None where they cannot be told.

        Args:
            piece: Its bytes; a leading space marks the beginning of a word.
            unknown: Whether it is the unknown token, which has no piece of its own.
        """
        if self._is_lost:
            return None
        if unknown:
            if self._unknown_is_a_word:
                return self._unknown_word()
            self._skip_unknown()
            return None
        bare = piece.lstrip(b" ")
        if not bare:  # spaces, or the beginning of a word in front of a text that has none there
            found = piece and not self._after_unknown and self._starts(piece, self._place)
            return self._take(piece, self._place) if found else None
        place = self._next_unknown_end(bare) if self._after_unknown else self._next(bare)
        if place is None:
            self._is_lost = True  # what follows could match by chance, at a wrong place
            return None
        self._after_unknown = False
        return self._take(bare, place)

    def _starts(self, piece: bytes, place: int) -> bool:
        return self._data.startswith(piece, place)

    def _past_spaces(self) -> int:
        place = self._place
        while place < len(self._data) and self._data[place] in _SPACE:
            place += 1
        return place

    def _next(self, bare: bytes) -> int | None:
        for place in (self._past_spaces(), self._place):
            if self._starts(bare, place):
                return place
        return None

    def _next_unknown_end(self, bare: bytes) -> int | None:
        """Find the token after an unknown one: the first of its kind, if it reads as in the text.

        What the text spells otherwise may be unknown itself, and only look like it here. So may a
        character that other vocabularies drop, which would not be what was passed over then.
        """
        place = self._data.find(bare, self._place)
        if place < 0:
            return None
        start, stop = self._owners[place][0], self._owners[place + len(bare) - 1][1]
        same = self._text[start:stop].encode("utf-8", "surrogatepass") == bare
        passed = self._text[self._known_to : start]
        return place if same and not any(map(_may_be_dropped, passed)) else None

    def _take(self, piece: bytes, place: int) -> Span:
        self._place = place + len(piece)
        start, stop = self._owners[place][0], self._owners[self._place - 1][1]
        if piece.strip(_SPACE):
            self._known_to = stop
        return start, stop

    def _skip_unknown(self) -> None:
        """Pass over one character: an unknown token stands for at least so much."""
        place = self._past_spaces() + 1
        while place < len(self._data) and self._data[place] & 0xC0 == 0x80:  # inside a character
            place += 1
        self._place, self._after_unknown = place, True

    def _unknown_word(self) -> Span | None:
        place = self._past_spaces()
        space = _ANY_SPACE.search(self._data, place)
        stop = space.start() if space else len(self._data)
        word = self._data[place:stop].decode("utf-8", "surrogatepass")
        mark = next((i for i, char in enumerate(word) if is_punctuation(char)), len(word))
        taken = word[: max(mark, 1)].encode("utf-8", "surrogatepass")
        return self._take(taken, place) if taken else None


def token_spans(
    pieces: Sequence[bytes], unknown: Sequence[bool], aligner: TextAligner
) -> list[Span | None]:
    """Return the span of each token of a text, in order; None for special tokens."""
    return [
        aligner.span(piece, unknown=is_unknown)
        for piece, is_unknown in zip(pieces, unknown, strict=True)
    ]

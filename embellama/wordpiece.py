"""Text as BERT's own normalizer leaves it, so that WordPiece ids equal Hugging Face's.

llama.cpp's WordPiece tokenizer normalises by itself, with differences that change the ids: it does
not decompose Hangul, strips marks that have width (the vowel signs of Devanagari), breaks words at
control characters that BERT drops, and splits words of any length. A `WordPieceNormalizer` does
BERT's steps in full; what is left to llama.cpp is splitting at spaces and punctuation and looking
up the longest pieces.

Source: the behaviour of ``BertNormalizer`` and ``WordPiece`` in the tokenizers package, with which
the tests compare the ids.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

MAX_WORD_CHARS = 100
"""Longer words are unknown. Source: ``max_input_chars_per_word`` of BERT's WordPiece model."""

UNKNOWN = "\U00010780"
"""A letter in no BERT vocabulary: a word of it becomes the unknown token."""

_WORD_START = "\u2581"  # how a GGUF marks a piece that starts a word: in a text it is no piece
_DROPPED = ("Cc", "Cf", "Co")  # unassigned characters stay
_KEPT_CONTROLS = "\t\n\r"
_ODD_ASCII = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONG_RUN = re.compile(rf"\S{{{MAX_WORD_CHARS + 1},}}")

_CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)
"""Each is a word of its own. Source: ``is_chinese_char`` of the tokenizers package."""


def is_punctuation(char: str) -> bool:
    """Tell whether a character is a word of its own, ASCII symbols included.

    Source: ``is_bert_punctuation`` of the tokenizers package.
    """
    return unicodedata.category(char).startswith("P") or char in "$+<=>^`|~"


class _CharacterTable(dict[int, str]):
    """What becomes of a character, worked out when it is first met."""

    def __init__(self, *, lowercase: bool, strip_accents: bool) -> None:
        super().__init__()
        self._lowercase = lowercase
        self._strip_accents = strip_accents

    def __missing__(self, code: int) -> str:
        self[code] = result = self._convert(chr(code))
        return result

    def _convert(self, char: str) -> str:
        category = unicodedata.category(char)
        if category == "Cs":
            return char  # a lone surrogate: not to be dropped in silence but refused
        if char in "\x00\ufffd" or (category in _DROPPED and char not in _KEPT_CONTROLS):
            return ""
        if char.isspace():
            return " "
        if self._strip_accents and category == "Mn":
            return ""
        if char == _WORD_START:
            return UNKNOWN
        if any(first <= ord(char) <= last for first, last in _CHINESE):
            return f" {char} "
        return char.lower() if self._lowercase else char


@dataclass(frozen=True)
class WordPieceNormalizer:
    """Callable that cleans a text as a BERT model expects it. Safe to use from any thread.

    Attributes:
        lowercase: Whether the model is uncased.
        strip_accents: Whether it drops marks without width; BERT does where it lowercases.
    """

    lowercase: bool = True
    strip_accents: bool = True
    _table: _CharacterTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        table = _CharacterTable(lowercase=self.lowercase, strip_accents=self.strip_accents)
        object.__setattr__(self, "_table", table)

    def __call__(self, text: str) -> str:
        """Normalise a text; lone surrogates are left for the tokenizer to refuse."""
        if text.isascii() and not _ODD_ASCII.search(text):
            text = text.lower() if self.lowercase else text
        else:
            if self.strip_accents:
                text = unicodedata.normalize("NFD", text)
            text = text.translate(self._table)
        if len(text) > MAX_WORD_CHARS:
            text = _LONG_RUN.sub(_hide_long_words, text)
        return text


def _hide_long_words(run: re.Match[str]) -> str:
    """Replace the words over the limit in a run without spaces by one unknown letter."""
    words: list[str] = []
    word: list[str] = []
    for char in run.group():
        if is_punctuation(char):
            words += (_shorten(word), char)
            word = []
        else:
            word.append(char)
    words.append(_shorten(word))
    return "".join(words)


def _shorten(word: list[str]) -> str:
    return "".join(word) if len(word) <= MAX_WORD_CHARS else UNKNOWN

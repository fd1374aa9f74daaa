"""Texts to token ids: normalised as the model expects, in parallel for many."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from embellama._parallel import map_threads
from embellama.errors import InvalidInputError
from embellama.gguf import GGUFMetadata
from embellama.types import IntArray, Vocabulary
from embellama.wordpiece import WordPieceNormalizer

TEXTS_PER_TASK = 128
"""Texts one thread takes at a time."""

PARALLEL_CHARS = 500_000
"""Characters from which several threads are faster than one.

Measured on two cores with MiniLM: 29,000 characters take 2.5 ms on one thread and 23 on two, most
of it joblib's own; 500,000 take 24 and 22; 2,000,000 take 97 and 74.
"""


R = TypeVar("R")

MAX_RUN_CHARS = 4096
"""Longest run without a change between space and non-space for a tokenizer that recurses.

llama.cpp splits text for most byte-pair vocabularies with ``std::regex``, which goes one level
deeper for each character of a match: between 20,000 and 50,000 of them overflow a stack of 8 MiB,
which ends the process. A fifth of that leaves room for threads with a smaller stack.
"""

_SPLITS_BY_HAND = frozenset(
    {"dbrx", "jina-v2-code", "jina-v2-es", "llama-bpe", "modern-bert", "qwen2"}
)
"""Byte-pair kinds that llama.cpp splits without ``std::regex``; measured with runs of 200,000."""

_LONG_RUN = re.compile(rf"\S{{{MAX_RUN_CHARS + 1}}}|\s{{{MAX_RUN_CHARS + 1}}}")


def _unchanged(text: str) -> str:
    return text


def _without_long_runs(text: str) -> str:
    """Return the text, or refuse one that would overflow the stack.

    Raises:
        InvalidInputError: It has a run of more than `MAX_RUN_CHARS` characters.
    """
    run = _LONG_RUN.search(text)
    if run is None:
        return text
    raise InvalidInputError(
        f"from character {run.start()} on, more than {MAX_RUN_CHARS} characters follow without a "
        "break between space and non-space, which llama.cpp's tokenizer for this model cannot "
        "take; break them up"
    )


def normalizer_for(metadata: GGUFMetadata) -> Callable[[str], str]:
    """Choose what a text goes through before the model's vocabulary sees it.

    WordPiece files that say nothing are uncased, as llama.cpp takes them.
    """
    if metadata.vocab_kind == "gpt2" and metadata.pre_tokenizer not in _SPLITS_BY_HAND:
        return _without_long_runs
    if metadata.vocab_kind != "bert":
        return _unchanged
    lowercase = metadata.lowercase is not False
    strip = metadata.strip_accents
    return WordPieceNormalizer(lowercase, lowercase if strip is None else strip)


def map_texts(function: Callable[[str], R], texts: Sequence[str], *, n_jobs: int) -> list[R]:
    """Apply a function to each text, on threads where there is enough text to pay for them."""
    if sum(map(len, texts)) < PARALLEL_CHARS:
        return [function(text) for text in texts]

    def run(chunk: Sequence[str]) -> list[R]:
        return [function(text) for text in chunk]

    starts = range(0, len(texts), TEXTS_PER_TASK)
    chunks = [texts[start : start + TEXTS_PER_TASK] for start in starts]
    return [result for done in map_threads(run, chunks, n_jobs=n_jobs) for result in done]


class Tokenizer:
    """Turns texts into the ids of one model. Safe to use from any thread."""

    def __init__(self, vocabulary: Vocabulary, metadata: GGUFMetadata) -> None:
        self._vocabulary = vocabulary
        self._normalize = normalizer_for(metadata)
        self._is_wordpiece = metadata.vocab_kind == "bert"
        self.n_special = len(self.encode(""))

    def encode(self, text: str, *, add_special: bool = True) -> IntArray:
        """Tokenize one text.

        Returns:
            int32 (n_tokens,) ids, the model's special tokens around them.

        Raises:
            InvalidInputError: The text has a lone surrogate, or a run of characters that would
                overflow the tokenizer's stack.
        """
        return self._vocabulary.tokenize(self._normalize(text), add_special=add_special)

    def encode_many(self, texts: Sequence[str], *, n_jobs: int) -> list[IntArray]:
        """Tokenize texts on ``n_jobs`` threads; results in the order of the texts."""
        return map_texts(self.encode, texts, n_jobs=n_jobs)

    def surely_fits(self, text: str, limit: int) -> bool:
        """Tell without tokenizing that a text has a token of its own and stays in the limit.

        Every token of WordPiece covers at least one byte, and of ASCII every visible character is
        in some token. Other vocabularies add tokens of their own, such as a word's beginning.
        False means unknown.
        """
        return (
            self._is_wordpiece
            and text.isascii()
            and len(text) + self.n_special <= limit
            and text.isprintable()
            and not text.isspace()
            and bool(text)
        )

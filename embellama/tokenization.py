"""Texts to token ids: normalised as the model expects, in parallel for many."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

import numpy as np

from embellama._parallel import map_threads
from embellama.errors import GGUFFormatError, InvalidInputError
from embellama.gguf import GGUFMetadata
from embellama.spans import Span, TextAligner, character_map, token_spans
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
T = TypeVar("T", bound=Sized)

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


_COMPOSED = frozenset({"modern-bert", "qwen2"})
"""Byte-pair kinds whose tokenizers compose letters and their marks before, which llama.cpp does
not. Source: ``"normalizer": {"type": "NFC"}`` in the tokenizer.json of ModernBERT, Qwen2 and Qwen3;
https://github.com/ggml-org/llama.cpp/issues/6980.
"""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


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
    if metadata.vocab_kind == "gpt2" and metadata.pre_tokenizer in _COMPOSED:
        return _composed
    if metadata.vocab_kind == "gpt2" and metadata.pre_tokenizer not in _SPLITS_BY_HAND:
        return _without_long_runs
    if metadata.vocab_kind != "bert":
        return _unchanged
    lowercase = metadata.lowercase is not False
    strip = metadata.strip_accents
    return WordPieceNormalizer(lowercase, lowercase if strip is None else strip)


def map_inputs(function: Callable[[T], R], inputs: Sequence[T], *, n_jobs: int) -> list[R]:
    """Apply a function to each text, on threads where there is enough text to pay for them."""
    if sum(map(len, inputs)) < PARALLEL_CHARS:
        return [function(item) for item in inputs]

    def run(chunk: Sequence[T]) -> list[R]:
        return [function(item) for item in chunk]

    starts = range(0, len(inputs), TEXTS_PER_TASK)
    chunks = [inputs[start : start + TEXTS_PER_TASK] for start in starts]
    return [result for done in map_threads(run, chunks, n_jobs=n_jobs) for result in done]


class Tokenizer:
    """Turns texts into the ids of one model. Safe to use from any thread."""

    def __init__(self, vocabulary: Vocabulary, metadata: GGUFMetadata) -> None:
        self._vocabulary = vocabulary
        self._normalize = normalizer_for(metadata)
        self._kind = metadata.vocab_kind
        self._is_wordpiece = metadata.vocab_kind == "bert"
        self._unknown_id = metadata.unk_token_id
        self.prefix, self.suffix = self._affixes()
        self.n_special = len(self.prefix) + len(self.suffix)

    def _affixes(self) -> tuple[IntArray, IntArray]:
        """Return the special tokens before and after every text: ``[CLS]`` and ``[SEP]`` of BERT.

        Raises:
            GGUFFormatError: They are not the same around a text as around nothing, so that no
                text could be cut rightly.
        """
        special, bare, full = self.encode(""), self.encode("a", add_special=False), self.encode("a")
        for n_before in range(len(special) + 1):
            before, after = special[:n_before], special[n_before:]
            if np.array_equal(np.concatenate([before, bare, after]), full):
                return before, after
        raise GGUFFormatError(
            f"the special tokens around nothing ({special.tolist()}) are not those around 'a' "
            f"({full.tolist()}); convert the model again"
        )

    def encode(self, text: str, *, add_special: bool = True) -> IntArray:
        """Tokenize one text.

        Returns:
            int32 (n_tokens,) ids, the model's special tokens around them.

        Raises:
            InvalidInputError: The text has a lone surrogate, or a run of characters that would
                overflow the tokenizer's stack.
        """
        return self._vocabulary.tokenize(self._normalize(text), add_special=add_special)

    def spans(self, text: str, ids: IntArray) -> list[Span | None]:
        """Return which characters of a text each of its tokens stands for.

        Args:
            text: The text.
            ids: int32 (n_tokens,), what `encode` made of it.

        Returns:
            (start, stop) of each token; None for special ones, and where the vocabulary's own
            normalisation cannot be traced back.
        """
        aligner = TextAligner(
            text,
            character_map(self._kind, self._normalize),
            unknown_is_a_word=self._is_wordpiece,
        )
        unknown = [int(token) == self._unknown_id for token in ids]
        return token_spans(self._vocabulary.pieces(ids), unknown, aligner)

    def pieces(self, ids: IntArray) -> list[bytes]:
        """Return the bytes each token stands for; empty for special and unknown ones."""
        return self._vocabulary.pieces(ids)

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

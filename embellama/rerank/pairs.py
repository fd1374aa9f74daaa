"""A query and a document as one sequence: how each kind of cross-encoder wants its pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from embellama.errors import ConfigurationError, GGUFFormatError, InvalidInputError
from embellama.gguf import GGUFMetadata
from embellama.tokenization import Tokenizer
from embellama.types import IntArray

_PLACES = re.compile(r"\{query\}|\{document\}")
"""Source: ``format_prompt_rerank`` in llama.cpp's tools/server/server-common.cpp."""

_ONE_SEPARATOR = frozenset({"modern-bert"})
"""Byte-pair models whose pairs are ``[CLS] q [SEP] d [SEP]``, as those of WordPiece."""

_TWO_SEPARATORS = frozenset({"bert", "jina-bert-v2"})
"""Byte-pair models of the RoBERTa kind: ``<s> q </s></s> d </s>``, as all Unigram ones."""

ControlTokens: TypeAlias = Callable[[str], Mapping[str, int]]
"""Finds the control tokens that a template spells."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A query and a document, ready for inference.

    Attributes:
        input_ids: int32 (n_tokens,).
        token_types: int32 (n_tokens,), or None for models without.
        n_tokens: Tokens of the whole pair, before any cut.
        n_own: Tokens that are the document's own, after the cut.
    """

    input_ids: IntArray
    token_types: IntArray | None
    n_tokens: int
    n_own: int

    @property
    def n_dropped(self) -> int:
        """Tokens of the document that a cut took away."""
        return self.n_tokens - len(self.input_ids)


class BoundTemplate(Protocol):
    """A template with its query filled in. Safe to use from any thread.

    Attributes:
        n_query: Tokens that are the query's own.
        n_besides: Tokens that are not the document's: query, special tokens, the template's text.
    """

    n_query: int
    n_besides: int

    def encode(self, document: str, *, room: int | None) -> EncodedPair:
        """Make the pair.

        Args:
            document: The text to be judged.
            room: Most tokens of the pair, more than ``n_besides``; the end of a longer document is
                cut off. None: as many as there are.

        Raises:
            InvalidInputError: The document cannot be tokenized.
        """
        ...


PairTemplate: TypeAlias = Callable[[str], BoundTemplate]
"""Takes the query; raises InvalidInputError for one that cannot be tokenized."""


def pair_template(
    metadata: GGUFMetadata, tokenizer: Tokenizer, control_tokens: ControlTokens
) -> PairTemplate:
    """Find out how a model wants its pairs: as its file says, or as its family does.

    Raises:
        ConfigurationError: Neither the file nor the family says it.
        GGUFFormatError: The file's template or special tokens are no use.
    """
    if metadata.rerank_template is not None:
        pieces = _pieces(metadata, metadata.rerank_template, tokenizer, control_tokens)
        return lambda query: _FilledIn(tokenizer, pieces, query)
    n_separators = _n_separators(metadata)
    if len(tokenizer.prefix) != 1 or len(tokenizer.suffix) != 1:
        raise GGUFFormatError(
            f"{str(metadata.path)!r} puts {len(tokenizer.prefix)} special tokens before a text and "
            f"{len(tokenizer.suffix)} after it; for a pair there has to be one each: convert the "
            "model again"
        )
    typed = metadata.vocab_kind == "bert" and metadata.n_token_types > 1
    return lambda query: _Joined(tokenizer, query, n_separators=n_separators, typed=typed)


def _n_separators(metadata: GGUFMetadata) -> int:
    kind, architecture = metadata.vocab_kind, metadata.architecture
    if kind == "bert" or (kind == "gpt2" and architecture in _ONE_SEPARATOR):
        return 1
    if kind == "t5" or (kind == "gpt2" and architecture in _TWO_SEPARATORS):
        return 2
    raise ConfigurationError(
        f"{str(metadata.path)!r} does not say how its pairs are written "
        f"(tokenizer.chat_template.rerank), and architecture {architecture!r} has no way of its "
        "own; convert the model again with a newer llama.cpp"
    )


class _Joined:
    """Ids laid side by side: first special token, query, separators, document, separator.

    A cut takes from the document alone, as ``truncation="only_second"`` of transformers does.

    Source: pairs of transformers' BertTokenizer and XLMRobertaTokenizer; ids that FlagEmbedding
    gives BAAI/bge-reranker-v2-m3 are in https://github.com/ggml-org/llama.cpp/pull/9510.
    """

    def __init__(self, tokenizer: Tokenizer, query: str, *, n_separators: int, typed: bool) -> None:
        self._tokenizer = tokenizer
        self._typed = typed
        ids = tokenizer.encode(query, add_special=False)
        self._separator = tokenizer.suffix
        self._first = np.concatenate([tokenizer.prefix, ids, *[tokenizer.suffix] * n_separators])
        self.n_query = len(ids)
        self.n_besides = len(self._first) + len(self._separator)

    def encode(self, document: str, *, room: int | None) -> EncodedPair:
        own = self._tokenizer.encode(document, add_special=False)
        n_tokens = self.n_besides + len(own)
        if room is not None:
            own = own[: room - self.n_besides]
        ids = np.concatenate([self._first, own, self._separator])
        types = None
        if self._typed:
            types = np.zeros(len(ids), dtype=np.int32)
            types[len(self._first) :] = 1
        return EncodedPair(ids, types, n_tokens, len(own))


_Piece: TypeAlias = "int | str"
"""A control token, or text in which ``{query}`` and ``{document}`` may stand."""


def _pieces(
    metadata: GGUFMetadata, template: str, tokenizer: Tokenizer, control_tokens: ControlTokens
) -> list[_Piece]:
    """Take a template apart at its control tokens.

    Only the template's own are tokens: what a query or a document spells the same way is text.
    """
    missing = {"{query}", "{document}"} - set(_PLACES.findall(template))
    if missing:
        raise GGUFFormatError(
            f"the pair template of {str(metadata.path)!r} has no {' and no '.join(sorted(missing))}"
        )
    try:
        tokenizer.encode(template, add_special=False)
    except InvalidInputError as exc:
        raise GGUFFormatError(
            f"the pair template of {str(metadata.path)!r} cannot be tokenized: {exc}"
        ) from exc
    found = control_tokens(template)
    spelt = sorted(map(re.escape, found), key=len, reverse=True)
    parts = re.split(f"({'|'.join(spelt)})", template) if spelt else [template]
    return [found.get(part, part) for part in parts if part]


class _FilledIn:
    """A text with places for both, tokenized as a whole between its control tokens.

    Source: ``format_prompt_rerank`` in llama.cpp's tools/server/server-common.cpp.
    """

    def __init__(self, tokenizer: Tokenizer, pieces: list[_Piece], query: str) -> None:
        self._tokenizer = tokenizer
        self._query = query
        self._parts = [
            piece if isinstance(piece, str) and "{document}" in piece else self._ids(piece, "")
            for piece in pieces
        ]
        self.n_query = len(tokenizer.encode(query, add_special=False))
        self.n_besides = len(self._filled(""))

    def _ids(self, piece: _Piece, document: str) -> IntArray:
        if isinstance(piece, int):
            return np.array([piece], dtype=np.int32)
        values = {"{query}": self._query, "{document}": document}
        text = _PLACES.sub(lambda place: values[place[0]], piece)
        return self._tokenizer.encode(text, add_special=False)

    def _filled(self, document: str) -> IntArray:
        return np.concatenate(
            [
                part if not isinstance(part, str) else self._ids(part, document)
                for part in self._parts
            ]
        )

    def encode(self, document: str, *, room: int | None) -> EncodedPair:
        ids = self._filled(document)
        n_tokens = len(ids)
        if room is not None and n_tokens > room:
            ids = self._longest_within(document, room)
        return EncodedPair(ids, None, n_tokens, max(1, len(ids) - self.n_besides))

    def _longest_within(self, document: str, room: int) -> IntArray:
        """Shorten a document by characters until the whole fits: words melt with what follows.

        Where not even one character fits, nothing is cut, and the pair stays too long.
        """
        fitting, too_long, best = 0, len(document), self._filled(document)
        while too_long - fitting > 1:
            middle = (fitting + too_long) // 2
            ids = self._filled(document[:middle])
            if len(ids) <= room:
                fitting, best = middle, ids
            else:
                too_long = middle
        return best

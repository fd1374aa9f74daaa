"""What comes back from the engine beside bare vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from embellama.types import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class TextReport:
    """What became of one text.

    Attributes:
        n_tokens: Its tokens with prompt and special tokens, before any cut.
        n_dropped: Tokens that a cut took away.
        n_windows: Windows it was embedded in.
        cached: Whether its vector was there already.
    """

    n_tokens: int
    n_dropped: int
    n_windows: int
    cached: bool

    @property
    def truncated(self) -> bool:
        """Whether it was cut."""
        return self.n_dropped > 0


@dataclass(frozen=True, slots=True)
class Usage:
    """How much a call was about, and how much of it had to be computed.

    Attributes:
        n_texts: Texts.
        n_tokens: Tokens of all texts with prompts and special tokens, less what cuts took away.
        n_computed_tokens: Tokens that went through the model: without texts from the cache and
            repeated ones, with what windows repeat.
    """

    n_texts: int
    n_tokens: int
    n_computed_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the seconds of a call went.

    Attributes:
        total_s: From the call to its result.
        cache_s: Looking up and keeping vectors.
        tokenize_s: Texts to ids; overlaps inference where there are many.
        queue_s: Until a worker began with the first text; for a thread too, where it was awaited.
        inference_s: Computing, added up over the workers.
    """

    total_s: float
    cache_s: float
    tokenize_s: float
    queue_s: float
    inference_s: float


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingResult:
    """Vectors, and everything there is to know about them.

    Attributes:
        vectors: (n_texts, dimensions), of the precision asked for; for binary ones
            (n_texts, dimensions / 8).
        texts: What became of each text.
        model: The name of the model.
        model_fingerprint: What made the vectors; see `ModelInfo.fingerprint`.
        fingerprint: The same with prompt, overflow policy, normalisation, dimensions and
            precision: vectors of one fingerprint were made in one way. A query's and a document's
            differ in their prompt, and are meant to be compared.
        usage: How much it was.
        timings: How long it took.
    """

    vectors: NDArray[Any]
    texts: tuple[TextReport, ...]
    model: str
    model_fingerprint: str
    fingerprint: str
    usage: Usage
    timings: Timings


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token of a text.

    Attributes:
        id: Its number in the vocabulary.
        text: The characters it stands for; of a special one its name, where it has a usual one.
        special: Whether the model puts it around every text.
        start: Where its characters begin, prompt included; None for special tokens and where the
            tokenizer's steps cannot be traced back.
        stop: Where they end.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True, eq=False)
class TokenEmbeddings:
    """The vectors of a text's tokens.

    Attributes:
        vectors: float32 (n_tokens, n_embd), special tokens included.
        input_ids: int32 (n_tokens,).
        spans: Where each token's characters are in the text, as (start, stop); None for special
            tokens, those of the prompt, and where the tokenizer's steps cannot be traced back.
    """

    vectors: FloatArray
    input_ids: IntArray
    spans: tuple[tuple[int, int] | None, ...]

"""text-embeddings-inference's requests and answers.

Source: docs/openapi.json and router/src/http/types.rs of huggingface/text-embeddings-inference.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from embellama.server.schemas.common import (
    MAX_LISTED,
    Extension,
    ModelName,
    PromptName,
    Reply,
    Request,
    TextOrTexts,
    Texts,
    TokenId,
)

_Mixed: TypeAlias = Annotated[
    Annotated[str, Tag("a text")] | Annotated[list[TokenId], Field(fail_fast=True), Tag("ids")],
    Discriminator(lambda given: "ids" if isinstance(given, list) else "a text"),
]


def _kind_of_inputs(given: object) -> str | None:
    """Tell by its first item what is meant, so that nothing is gone through twice."""
    if isinstance(given, str):
        return "a text"
    if not isinstance(given, list):
        return "an object" if isinstance(given, dict) else None
    return "token ids" if given and isinstance(given[0], int) else "a list"


_Kinds: TypeAlias = (
    Annotated[str, Tag("a text")]
    | Annotated[list[TokenId], Field(fail_fast=True), Tag("token ids")]
    | Annotated[list[_Mixed], Field(max_length=MAX_LISTED, fail_fast=True), Tag("a list")]
)

_OneOf = partial(
    Discriminator,
    _kind_of_inputs,
    custom_error_type="input_type",
)

Inputs: TypeAlias = Annotated[
    _Kinds,
    _OneOf(custom_error_message="give a text, token ids, or a list of texts and lists of ids"),
]
"""A text, the token ids of one, or a list of texts and token ids."""

Direction: TypeAlias = Literal["Left", "Right", "left", "right"]
"""Which end a cut takes away; huggingface_hub writes it small."""


class Truncation(Request):
    """What becomes of texts over the limit; without ``truncate`` as the server was started."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"

    @property
    def from_left(self) -> bool:
        """Whether a cut takes the beginning away."""
        return self.truncation_direction.lower() == "left"


class EmbedAllRequest(Truncation):
    """``POST /embed_all``."""

    inputs: Inputs
    prompt_name: PromptName | None = None
    model: ModelName | None = None
    embellama: Extension | None = None


class EmbedRequest(EmbedAllRequest):
    """``POST /embed``."""

    normalize: bool = True
    dimensions: int | None = Field(default=None, ge=1, lt=2**31)


class SimilarityInputs(Request):
    """A sentence, and those it is compared with."""

    source_sentence: str
    sentences: Texts


class SimilarityParameters(Truncation):
    """How the sentences of a comparison are embedded."""

    prompt_name: PromptName | None = None


class SimilarityRequest(Request):
    """``POST /similarity``."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None
    model: ModelName | None = None


class RootRequest(EmbedRequest):
    """``POST /``: what ``/embed`` takes, or what ``/similarity`` does.

    The reference serves one of them there, as it was started; huggingface_hub sends both.
    """

    inputs: Annotated[  # type: ignore[assignment]
        _Kinds | Annotated[SimilarityInputs, Tag("an object")],
        _OneOf(
            custom_error_message="give a text, token ids, a list of texts and lists of ids, or an "
            "object of a source_sentence and sentences"
        ),
    ]
    parameters: SimilarityParameters | None = None


class RerankRequest(Truncation):
    """``POST /rerank``."""

    query: str
    texts: Texts
    raw_scores: bool = False
    return_text: bool = False
    model: ModelName | None = None


class TokenizeRequest(Request):
    """``POST /tokenize``."""

    inputs: TextOrTexts
    add_special_tokens: bool = True
    prompt_name: PromptName | None = None
    model: ModelName | None = None


EmbedReply: TypeAlias = list[list[float]]
"""A vector for each input."""

EmbedAllReply: TypeAlias = list[list[list[float]]]
"""A vector for each token of each input."""

SimilarityReply: TypeAlias = list[float]
"""The cosine of each sentence with the source sentence."""


class Rank(Reply):
    """One text and its score; ``text`` where it was asked for."""

    index: int
    score: float
    text: str | None = None


RerankReply: TypeAlias = list[Rank]
"""The best first."""


class Token(Reply):
    """A token and the characters ``start`` to ``stop`` it stands for, where they are known."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


TokenizeReply: TypeAlias = list[list[Token]]
"""The tokens of each input."""


class InfoReply(Reply):
    """What is served."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: dict[str, dict[str, Any]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


class ErrorReply(Reply):
    """An error in text-embeddings-inference's form."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]

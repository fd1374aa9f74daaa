"""What all requests share, and the part of a request that is embellama's own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from embellama.config import MAX_P

ModelName = Annotated[str, Field(max_length=512)]

TokenId = Annotated[int, Field(ge=0, lt=2**31)]

MAX_LISTED = 1 << 17
"""Items of any list but token ids: far more than any server takes."""

PromptName = Annotated[str, Field(max_length=256)]

Prompt = Annotated[str, Field(max_length=8192)]
"""What is put in front of every text, and so counts as often as there are texts."""

Texts = Annotated[list[str], Field(max_length=MAX_LISTED, fail_fast=True)]
"""Texts, of which only the first wrong one is told: telling all takes seconds and gigabytes."""

TextOrTexts = Annotated[
    Annotated[str, Tag("a text")] | Annotated[Texts, Tag("a list")],
    Discriminator(
        lambda given: {str: "a text", list: "a list"}.get(type(given)),
        custom_error_type="input_type",
        custom_error_message="give a text, or a list of texts",
    ),
]

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


_KINDS_OF_LISTS = {str: "a list of texts", int: "token ids", list: "lists of token ids"}


def _kind_of_input(given: object) -> str | None:
    """Tell by its first item what an input is meant as, so that a fault is told of that alone."""
    if isinstance(given, str):
        return "a text"
    if not isinstance(given, list) or not given:
        return None
    return _KINDS_OF_LISTS.get(type(given[0]))


TextsOrIds = Annotated[
    Annotated[str, Tag("a text")]
    | Annotated[
        list[str],
        Field(min_length=1, max_length=MAX_LISTED, fail_fast=True),
        Tag("a list of texts"),
    ]
    | Annotated[TokenIds, Tag("token ids")]
    | Annotated[
        list[TokenIds],
        Field(min_length=1, max_length=MAX_LISTED, fail_fast=True),
        Tag("lists of token ids"),
    ],
    Discriminator(
        _kind_of_input,
        custom_error_type="input_type",
        custom_error_message=(
            "Input should be a text, or a list of at least one text, token id or list of token ids"
        ),
    ),
]
"""What OpenAI's API embeds. Its tags are no identifiers, so that no message names them."""


def _kind_of_normalization(given: object) -> str:
    return "a number" if isinstance(given, int) else "a name"


_Normalization = Annotated[
    Annotated[Literal["l2", "none", "max_abs"], Tag("a name")]
    | Annotated[int, Field(ge=1, le=MAX_P), Tag("a number")],
    Discriminator(_kind_of_normalization),
]


class Request(BaseModel):
    """A request's body: types as JSON has them, and unknown fields left alone, as the APIs do."""

    model_config = ConfigDict(
        strict=True, extra="ignore", allow_inf_nan=False, frozen=True, protected_namespaces=()
    )


class OwnRequest(Request):
    """A body of an API that is embellama's own: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Reply(BaseModel):
    """An answer's body, for the schema alone: answers are written without these classes."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Extension(BaseModel):
    """What embellama can do and the API at hand has no field for. Unknown fields are refused.

    Attributes:
        kind: The role of the texts, which chooses the model's prompt.
        prompt: What to put in front of each text instead.
        prompt_name: Which of the model's prompts to put in front instead.
        overflow: What happens to a text over the limit.
        truncate_side: Which end a cut takes away.
        max_tokens: A lower limit than the model's.
        window_overlap: Tokens that neighbouring windows share.
        normalization: How vectors are scaled.
        force_dimensions: Cut vectors also where the model was not trained for it.
        precision: What the components are.
        priority: Interactive requests go ahead of bulk ones; chosen by the number of texts unless
            given.
        timeout_s: Seconds after which the answer is of no use.
        details: Say in the answer what became of each text.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, protected_namespaces=()
    )

    kind: Literal["query", "document"] | None = None
    prompt: Prompt | None = None
    prompt_name: PromptName | None = None
    overflow: Literal["error", "truncate", "window"] | None = None
    truncate_side: Literal["left", "right"] = "right"
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    window_overlap: int | None = Field(default=None, ge=0, lt=2**31)
    normalization: _Normalization | None = None
    force_dimensions: bool = False
    precision: Literal["float32", "float16", "binary", "ubinary"] = "float32"
    priority: Literal["interactive", "bulk"] | None = None
    timeout_s: float | None = Field(default=None, gt=0.0, le=10**6)
    details: bool = False


NO_EXTENSION = Extension()


class ErrorReply(Reply):
    """An error in OpenAI's form."""

    error: dict[str, Any]

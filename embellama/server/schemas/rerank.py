"""Cohere's and Jina's rerank, as one form that the clients of both understand."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from embellama.server.schemas.common import MAX_LISTED, ModelName, Reply, Request

Document: TypeAlias = Annotated[
    Annotated[str, Tag("a text")] | Annotated[dict[str, str], Tag("an object")],
    Discriminator(
        lambda given: "a text" if isinstance(given, str) else "an object",
    ),
]
"""A text, or an object with texts in it; its ``text`` counts unless other fields are named."""


class RerankExtension(BaseModel):
    """What embellama can do and the APIs have no field for. Unknown fields are refused.

    Attributes:
        overflow: What happens to a document over the limit.
        normalize: Scores from 0 to 1; otherwise the model's logits.
        priority: Interactive requests go ahead of bulk ones; chosen by the number of documents
            unless given.
        timeout_s: Seconds after which the answer is of no use.
        details: Say in the answer what became of each document.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    overflow: Literal["error", "truncate"] | None = None
    normalize: bool = True
    priority: Literal["interactive", "bulk"] | None = None
    timeout_s: float | None = Field(default=None, gt=0.0, le=10**6)
    details: bool = False


NO_EXTENSION = RerankExtension()


class RelevantSpans(Request):
    """Cohere's wish for the parts of a document that count, which cross-encoders do not tell."""

    mode: str


class RerankRequest(Request):
    """``POST /v1/rerank`` and ``POST /v2/rerank``.

    Attributes:
        model: What the client calls it; the default one unless given.
        query: What is asked.
        documents: What may answer it.
        top_n: Answer with the best so many; all unless given.
        rank_fields: Fields of documents whose texts count, one after the other (Cohere, v1).
        return_documents: Give the documents back; Jina does unless told otherwise, Cohere does not.
        truncation: False refuses documents over the limit instead of cutting them (Jina).
        max_tokens_per_doc: Cohere's, v2; answered with a warning.
        max_chunks_per_doc: Cohere's, v1; answered with a warning.
        relevant_spans: Cohere's, v2; answered with a warning.
        embellama: The part that is embellama's own.
    """

    model: ModelName | None = None
    query: Document
    documents: list[Document] = Field(min_length=1, max_length=MAX_LISTED, fail_fast=True)
    top_n: int | None = Field(default=None, ge=1, lt=2**31)
    rank_fields: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    return_documents: bool | None = None
    truncation: bool | None = None
    max_tokens_per_doc: int | None = Field(default=None, ge=1, lt=2**31)
    max_chunks_per_doc: int | None = Field(default=None, ge=1, lt=2**31)
    relevant_spans: RelevantSpans | None = None
    embellama: RerankExtension | None = None


class Result(Reply):
    """A document and how well it answers: from 0 to 1."""

    index: int
    relevance_score: float
    document: dict[str, str] | None = None


class RerankReply(Reply):
    """The best documents first."""

    id: str
    model: str
    results: list[Result]
    usage: dict[str, int]
    meta: dict[str, Any]


class RerankErrorReply(Reply):
    """An error, where Cohere's clients look and where Jina's do."""

    message: str
    detail: str

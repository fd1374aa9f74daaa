"""Rerank as Jina (v1) and Cohere (v1 and v2) have it.

Sources: docs.cohere.com/reference/rerank and its best practices; api.jina.ai/redoc.
"""

from __future__ import annotations

from typing import Any

from embellama.rerank.scoring import RerankResult
from embellama.server.choice import able_model
from embellama.server.embedding import TRUNCATED, check_count, computed
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.problems import Problem, rerank_error
from embellama.server.schemas.rerank import (
    NO_EXTENSION,
    Document,
    RerankReply,
    RerankRequest,
)
from embellama.server.served import Served
from embellama.server.service import Service
from embellama.types import Overflow, Priority

TAG = "Rerank"

SEARCH_UNIT = 100
"""Documents that Cohere counts as one search, and for which somebody waits.

Source: cohere.com/pricing.
"""


async def rerank_v1(service: Service, exchange: Exchange, body: RerankRequest) -> Answer:
    """Order documents by how well they answer, and give them back as Jina does."""
    return await _reranked(service, exchange, body, api_version="1", returns_documents=True)


async def rerank_v2(service: Service, exchange: Exchange, body: RerankRequest) -> Answer:
    """Order documents by how well they answer, as Cohere does without giving them back."""
    return await _reranked(service, exchange, body, api_version="2", returns_documents=False)


async def _reranked(
    service: Service,
    exchange: Exchange,
    body: RerankRequest,
    *,
    api_version: str,
    returns_documents: bool,
) -> Answer:
    served = await able_model(service, exchange, body.model, "scores")
    exchange.model, exchange.n_texts = served.name, len(body.documents)
    check_count(service, len(body.documents), "documents")
    ranked = await _ranked(service, exchange, served, body)
    if body.return_documents is not None:
        returns_documents = body.return_documents
    results: list[dict[str, Any]] = [
        {"index": found.index, "relevance_score": found.score} for found in ranked[: body.top_n]
    ]
    if returns_documents:
        for result in results:
            given = body.documents[result["index"]]
            result["document"] = {"text": given} if isinstance(given, str) else given
    content = {
        "id": exchange.request_id,
        "model": body.model or served.name,
        "results": results,
        "usage": {"prompt_tokens": exchange.n_tokens, "total_tokens": exchange.n_tokens},
        "meta": _meta(body, exchange, api_version),
    }
    if body.embellama is not None and body.embellama.details:
        content["embellama"] = _details(ranked)
    return answer(content)


async def _ranked(
    service: Service, exchange: Exchange, served: Served, body: RerankRequest
) -> list[RerankResult]:
    """Score all documents, the best first, and note how much it was."""
    options = body.embellama or NO_EXTENSION
    query = _text(body.query, "query", None)
    documents = [
        _text(document, f"documents[{index}]", body.rank_fields)
        for index, document in enumerate(body.documents)
    ]
    # both cut long documents unless told otherwise
    by_api: Overflow = "error" if body.truncation is False else "truncate"
    by_number: Priority = "interactive" if len(documents) <= SEARCH_UNIT else "bulk"
    priority = options.priority or by_number

    async def compute(timeout_s: float) -> list[RerankResult]:
        return await service.engine.arerank(
            served.name,
            query,
            documents,
            normalize=options.normalize,
            overflow=options.overflow or by_api,
            priority=priority,
            timeout_s=timeout_s,
        )

    ranked = await computed(
        service,
        exchange,
        served,
        [query, *documents],
        compute,
        priority=priority,
        timeout_s=options.timeout_s,
    )
    note_ranked(exchange, ranked)
    return ranked


def note_ranked(exchange: Exchange, ranked: list[RerankResult]) -> None:
    """Note how much was scored and cut, and tell the client of cuts."""
    n_truncated = sum(found.n_dropped > 0 for found in ranked)
    exchange.n_tokens += sum(found.n_tokens - found.n_dropped for found in ranked)
    exchange.n_truncated += n_truncated
    if n_truncated:
        exchange.extra_headers.append((TRUNCATED, str(n_truncated).encode()))


def _text(given: Document, where: str, fields: list[str] | None) -> str:
    """Return what counts of a document.

    Raises:
        Problem: It is an object without the fields that count; 400.
    """
    if isinstance(given, str):
        return given
    wanted = fields or ["text"]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise Problem(
            400,
            "invalid_request",
            f"{where} has no field {missing[0][:100]!r}; give a text, or an object with "
            "'text' or with the fields that rank_fields names",
            param=where,
        )
    return "\n".join(given[name] for name in wanted)


def _meta(body: RerankRequest, exchange: Exchange, api_version: str) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "api_version": {"version": api_version},
        "billed_units": {"search_units": -(-len(body.documents) // SEARCH_UNIT)},
        "tokens": {"input_tokens": exchange.n_tokens, "output_tokens": 0},
    }
    warnings = _warnings(body, exchange.n_truncated)
    return meta | {"warnings": warnings} if warnings else meta


def _warnings(body: RerankRequest, n_truncated: int) -> list[str]:
    """Say what was asked for and not done, and what was done and not asked for."""
    found = [
        f"{name} is not applied: a document is read up to the model's limit"
        for name in ("max_tokens_per_doc", "max_chunks_per_doc")
        if getattr(body, name) is not None
    ]
    if body.relevant_spans is not None and body.relevant_spans.mode == "enabled":
        found.append("relevant_spans is not applied: the model judges a document as a whole")
    if n_truncated:
        found.append(f"{n_truncated} documents were over the model's limit and cut")
    return found


def _details(ranked: list[RerankResult]) -> dict[str, Any]:
    return {
        "documents": [
            {"index": found.index, "n_tokens": found.n_tokens, "n_dropped": found.n_dropped}
            for found in sorted(ranked, key=lambda found: found.index)
        ]
    }


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/rerank",
        rerank_v1,
        "Order documents by a query (Jina, Cohere v1).",
        TAG,
        body=RerankRequest,
        reply=RerankReply,
        error_form=rerank_error,
    ),
    Endpoint(
        "POST",
        "/v2/rerank",
        rerank_v2,
        "Order documents by a query (Cohere v2).",
        TAG,
        body=RerankRequest,
        reply=RerankReply,
        error_form=rerank_error,
    ),
)

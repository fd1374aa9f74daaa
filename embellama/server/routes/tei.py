"""text-embeddings-inference's API: vectors, similarities, scores, and what is served."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

from pydantic import BaseModel

from embellama.errors import InputTooLongError, InvalidInputError
from embellama.rerank.scoring import RerankResult
from embellama.server.choice import able_model
from embellama.server.embedding import computed, embed, writable
from embellama.server.endpoint import Endpoint, Handler
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.options import overflow_of
from embellama.server.problems import Problem, problem_of, tei_error
from embellama.server.routes.rerank import SEARCH_UNIT, note_ranked
from embellama.server.routes.tei_tokens import token_vectors, tokenize
from embellama.server.schemas.tei import (
    EmbedAllReply,
    EmbedAllRequest,
    EmbedReply,
    EmbedRequest,
    InfoReply,
    RerankReply,
    RerankRequest,
    RootRequest,
    SimilarityInputs,
    SimilarityParameters,
    SimilarityReply,
    SimilarityRequest,
    TokenizeReply,
    TokenizeRequest,
)
from embellama.server.service import Service
from embellama.server.tei_forms import (
    TAG,
    cut_of,
    described,
    headers_of,
    items_of,
    refuse,
)
from embellama.similarity import one_to_many
from embellama.types import Priority


async def vectors(service: Service, exchange: Exchange, body: EmbedRequest) -> Answer:
    """Embed what the request has, in its order."""
    items = items_of(service, body.inputs)
    refuse(body.embellama, {"details"}, "the answer has no place for them; ask /v1/embeddings")
    served = await able_model(service, exchange, body.model, "vectors")
    done = await embed(
        service,
        exchange,
        body.model or served.name,  # an alias may have a prompt of its own
        items,
        extension=body.embellama,
        dimensions=body.dimensions,
        normalization="l2" if body.normalize else "none",
        overflow=overflow_of(body.truncate),
        truncate_side="left" if body.from_left else None,
        prompt_name=body.prompt_name,
    )
    return answer(writable(done.vectors), headers=headers_of(exchange, served, items))


async def root(service: Service, exchange: Exchange, body: RootRequest) -> Answer:
    """Embed, or compare sentences, as the inputs say."""
    if isinstance(body.inputs, SimilarityInputs):
        return await _compared(service, exchange, body.inputs, body.parameters, body.model)
    return await vectors(service, exchange, body)


async def similarity(service: Service, exchange: Exchange, body: SimilarityRequest) -> Answer:
    """Compare sentences with one."""
    return await _compared(service, exchange, body.inputs, body.parameters, body.model)


async def _compared(
    service: Service,
    exchange: Exchange,
    inputs: SimilarityInputs,
    parameters: SimilarityParameters | None,
    model: str | None,
) -> Answer:
    sentences = items_of(service, inputs.sentences, "inputs.sentences")
    options = parameters or SimilarityParameters()
    served = await able_model(service, exchange, model, "vectors")
    items = [inputs.source_sentence, *sentences]
    try:
        done = await embed(
            service,
            exchange,
            model or served.name,
            items,
            normalization="l2",
            overflow=overflow_of(options.truncate),
            truncate_side="left" if options.from_left else None,
            prompt_name=options.prompt_name,
        )
    except InvalidInputError as exc:
        problem = problem_of(exc, form=tei_error)
        problem.message += "; text 0 is the source sentence, text 1 the first of the sentences"
        raise problem from exc
    rows = done.vectors
    cosines = await asyncio.to_thread(one_to_many, rows[0], rows[1:])
    return answer(cosines, headers=headers_of(exchange, served, items))


async def rerank(service: Service, exchange: Exchange, body: RerankRequest) -> Answer:
    """Order texts by how well they answer the query."""
    items_of(service, body.texts, "texts")
    served = await able_model(service, exchange, body.model, "scores")
    exchange.model, exchange.n_texts = served.name, len(body.texts)
    overflow = cut_of(service, body.truncate)
    cuts_left = overflow == "truncate" and body.from_left
    priority: Priority = "interactive" if len(body.texts) <= SEARCH_UNIT else "bulk"

    async def compute(timeout_s: float) -> list[RerankResult]:
        return await service.engine.arerank(
            served.name,
            body.query,
            body.texts,
            normalize=not body.raw_scores,
            overflow="error" if cuts_left else overflow,
            priority=priority,
            timeout_s=timeout_s,
        )

    items = [body.query, *body.texts]
    try:
        ranked = await computed(service, exchange, served, items, compute, priority=priority)
    except InputTooLongError as exc:
        if not cuts_left:
            raise
        raise Problem(
            400,
            exc.code,
            f"{exc}; truncation_direction 'Left' is not possible here: documents are cut at their "
            "end, with 'Right'",
            indices=exc.indices,
        ) from exc
    note_ranked(exchange, ranked)
    content = [
        {"index": one.index, "score": one.score}
        | ({"text": one.document} if body.return_text else {})
        for one in ranked
    ]
    return answer(content, headers=headers_of(exchange, served, items))


async def info(service: Service, exchange: Exchange, body: None) -> Answer:
    """Describe the first model, or the one that ``?model=`` names; it is loaded first."""
    asked = parse_qs(exchange.query.decode("latin-1")).get("model", [None])[0]
    async with service.models.use(service.models.find(asked)) as found:
        return answer(described(service, found))


def _post(path: str, handler: Handler, summary: str, body: type[BaseModel], reply: Any) -> Endpoint:
    return Endpoint("POST", path, handler, summary, TAG, body, reply, error_form=tei_error)


ENDPOINTS = (
    _post("/embed", vectors, "Embed texts.", EmbedRequest, EmbedReply),
    _post("/embed_all", token_vectors, "Embed tokens.", EmbedAllRequest, EmbedAllReply),
    _post("/rerank", rerank, "Order texts for a query.", RerankRequest, RerankReply),
    _post("/similarity", similarity, "Compare texts.", SimilarityRequest, SimilarityReply),
    _post("/tokenize", tokenize, "Tokenize texts.", TokenizeRequest, TokenizeReply),
    _post("/", root, "Embed or compare texts.", RootRequest, EmbedReply | SimilarityReply),
    Endpoint(
        "GET",
        "/info",
        info,
        "What is served.",
        TAG,
        reply=InfoReply,
        error_form=tei_error,
    ),
)

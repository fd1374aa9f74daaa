"""text-embeddings-inference's API about tokens: the vector of each, and what they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from embellama.results import TextToken, TokenEmbeddings
from embellama.server.choice import able_model
from embellama.server.counting import count_tokens
from embellama.server.embedding import computed
from embellama.server.exchange import Answer, Exchange, answer
from embellama.server.options import prompted
from embellama.server.problems import Problem
from embellama.server.schemas.common import NO_EXTENSION, Extension
from embellama.server.schemas.tei import EmbedAllRequest, TokenizeRequest
from embellama.server.served import Served
from embellama.server.service import Service
from embellama.server.tei_forms import cut_of, headers_of, items_of, refuse
from embellama.server.token_ids import Item, readable
from embellama.server.tokenized import tokens_of
from embellama.types import Priority

MAX_COMPONENTS = 1 << 24
"""Most numbers of an answer with token vectors: 64 MiB of them, and about 200 MB of JSON."""

_UNUSED = frozenset(Extension.model_fields) - {
    "kind",
    "prompt",
    "prompt_name",
    "overflow",
    "truncate_side",
    "max_tokens",
    "normalization",
    "priority",
    "timeout_s",
}
"""What of the extension means nothing for the vectors of tokens."""


async def token_vectors(service: Service, exchange: Exchange, body: EmbedAllRequest) -> Answer:
    """Compute the vector of each token of what the request has, special tokens included."""
    items = items_of(service, body.inputs)
    refuse(body.embellama, _UNUSED, "it means nothing for the vectors of tokens")
    served = await able_model(service, exchange, body.model, "vectors")
    exchange.model, exchange.n_texts = served.name, len(items)
    inputs = readable(items, service.config.token_ids)
    options = body.embellama or NO_EXTENSION
    priority = options.priority or _by_number(inputs)
    counted = prompted(served.info, inputs, options, options.prompt_name or body.prompt_name)

    async def compute(timeout_s: float) -> list[TokenEmbeddings]:
        await _check_size(service, served, counted)
        return await service.engine.aembed_tokens(
            served.name,
            inputs,
            kind=options.kind,
            prompt=options.prompt,
            prompt_name=options.prompt_name or body.prompt_name,
            overflow=options.overflow or cut_of(service, body.truncate),
            truncate_side="left" if body.from_left else options.truncate_side,
            max_tokens=options.max_tokens,
            normalization="none" if options.normalization is None else options.normalization,
            priority=priority,
            timeout_s=timeout_s,
        )

    done = await computed(
        service, exchange, served, counted, compute, priority=priority, timeout_s=options.timeout_s
    )
    exchange.n_tokens += sum(len(text.input_ids) for text in done)
    parts = []
    for text in done:
        parts.append(answer(text.vectors).body)
        await asyncio.sleep(0)  # to write all of them at once would keep others waiting
    return Answer(b"[" + b",".join(parts) + b"]", headers=headers_of(exchange, served, items))


async def _check_size(service: Service, served: Served, inputs: Sequence[Item]) -> None:
    """Refuse an answer that would be too large; counted only where it may be."""
    info = served.info
    assert info is not None  # it is held
    most = sum(
        min(
            info.n_ctx,
            info.n_special_tokens
            + (len(item.encode(errors="replace")) if isinstance(item, str) else len(item)),
        )
        for item in inputs
    )
    limit = MAX_COMPONENTS // info.n_embd
    if most <= limit:
        return
    n_tokens = await count_tokens(service, info.name, inputs, most=limit, most_each=info.n_ctx)
    if n_tokens > limit:
        raise Problem(
            400,
            "too_many_tokens",
            f"the vectors of {n_tokens} tokens or more, and the limit is {limit} tokens of "
            f"{info.n_embd} numbers an answer; send the texts in several requests",
        )


async def tokenize(service: Service, exchange: Exchange, body: TokenizeRequest) -> Answer:
    """Return the tokens of each text, and the characters they stand for."""
    items_of(service, body.inputs)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    served = service.models.find(body.model)
    exchange.model, exchange.n_texts = served.name, len(texts)

    async def compute(timeout_s: float) -> list[list[TextToken]]:
        return await tokens_of(
            service,
            served.name,
            texts,
            add_special_tokens=body.add_special_tokens,
            prompt_name=body.prompt_name,
            timeout_s=timeout_s,
        )

    done = await computed(
        service,
        exchange,
        served,
        texts,
        compute,
        priority=_by_number(texts),
        is_inference=False,
    )
    exchange.n_tokens += sum(map(len, done))
    return answer(done)


def _by_number(items: Sequence[Item]) -> Priority:
    return "interactive" if len(items) == 1 else "bulk"

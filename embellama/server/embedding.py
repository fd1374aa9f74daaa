"""A request's inputs on their way through the engine: one way for all APIs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embellama.calls import told_of_computed
from embellama.errors import ModelNotFoundError
from embellama.model_info import ModelInfo
from embellama.results import EmbeddingResult
from embellama.server.counting import count_tokens
from embellama.server.exchange import Exchange
from embellama.server.models import OLLAMA_TAG
from embellama.server.options import (
    check_dimensions,
    check_prompt_name,
    check_windows,
    prompted,
)
from embellama.server.problems import RETRY_AFTER_S, Problem
from embellama.server.schemas.common import NO_EXTENSION, Extension
from embellama.server.served import Served
from embellama.server.service import Service
from embellama.server.token_ids import Item, readable
from embellama.server.watched import Watched
from embellama.types import Normalization, Overflow, Priority, TruncateSide

T = TypeVar("T")

MAX_EVICTIONS = 10
"""How often a request loads its model again that another one's load has pushed out."""

COST_A_TEXT = 8
"""What a text costs beside its bytes: special tokens, and the work around it."""

BYTES_AN_ID = 4
"""About as many characters as a token stands for."""

FINGERPRINT = b"x-embellama-fingerprint"
TRUNCATED = b"x-embellama-truncated"


async def embed(
    service: Service,
    exchange: Exchange,
    model: str | None,
    items: Sequence[Item],
    *,
    extension: Extension | None = None,
    dimensions: int | None = None,
    normalization: Normalization | None = None,
    overflow: Overflow | None = None,
    truncate_side: TruncateSide | None = None,
    prompt_name: str | None = None,
) -> EmbeddingResult:
    """Embed the inputs of a request.

    Args:
        service: The server.
        exchange: The request, in which it is noted what became of it.
        model: What the client calls the model; None: the default one.
        items: Texts, or token ids.
        extension: The part of the request that is embellama's own; it wins over what follows, but
            for ``truncate_side``.
        dimensions: As the engine's; so are all that follow.
        normalization: Where the API says it.
        overflow: Where the API says it; None: as the server was started.
        truncate_side: Where the API says it.
        prompt_name: Where the API says it.

    Raises:
        Problem: It is refused: too many texts or tokens, no such model, no room.
        EmbellamaError: It could not be done.
    """
    options = extension or NO_EXTENSION
    served = service.models.find(model)
    exchange.model, exchange.n_texts = served.name, len(items)
    check_count(service, len(items))
    inputs = readable(items, service.config.token_ids)
    priority: Priority = options.priority or ("interactive" if len(inputs) == 1 else "bulk")
    named = options.prompt_name or prompt_name
    is_chosen = named or options.kind is not None or options.prompt is not None
    by_default = None if is_chosen else _default_prompt(service, model, served)
    overflow = options.overflow or overflow or service.config.overflow

    async def compute(timeout_s: float) -> EmbeddingResult:
        _check_default_prompt(by_default, served)
        if (info := served.info) is not None:
            is_own = options.prompt_name is not None
            check_prompt_name(info, named, "embellama.prompt_name" if is_own else "prompt_name")
            check_dimensions(info, dimensions, force=options.force_dimensions)
            if overflow == "window":
                check_windows(service, info, options)
        return await service.engine.aembed_detailed(
            served.name,
            inputs,
            kind=options.kind,
            prompt=options.prompt,
            prompt_name=named or by_default,
            overflow=overflow,
            truncate_side=truncate_side or options.truncate_side,
            max_tokens=options.max_tokens,
            window_overlap=options.window_overlap,
            normalization=normalization if options.normalization is None else options.normalization,
            dimensions=dimensions,
            force_dimensions=options.force_dimensions,
            precision=options.precision,
            priority=priority,
            timeout_s=timeout_s,
        )

    done = await computed(
        service,
        exchange,
        served,
        prompted(served.info, inputs, options, named or by_default),
        compute,
        priority=priority,
        timeout_s=options.timeout_s,
    )
    _note(exchange, done)
    return done


def _default_prompt(service: Service, called: str | None, served: Served) -> str | None:
    """Return the name of the prompt for who chose none, by what the client calls the model."""
    names = (called or served.name, (called or "").removesuffix(OLLAMA_TAG), served.name)
    prompts = service.config.default_prompts
    return next((prompts[name] for name in names if name in prompts), None)


def _check_default_prompt(name: str | None, served: Served) -> None:
    """Refuse to embed without a prompt that the server was told to put in front.

    Raises:
        Problem: The model, which is loaded by now, has no such prompt; 500.
    """
    if name is None or served.info is None or name in served.info.prompts:
        return
    known = ", ".join(map(repr, served.info.prompts)) or "none"
    raise Problem(
        500,
        "configuration",
        f"the server's default_prompts name {name!r} for the model {served.name!r}, whose prompts "
        f"are: {known}; start it with another --default-prompt, or give the model that prompt",
    )


def check_count(service: Service, n_texts: int, param: str = "input") -> None:
    """Refuse a request with too many texts.

    Args:
        service: The server.
        n_texts: How many there are.
        param: The field that has them.

    Raises:
        Problem: There are more than the server takes.
    """
    if n_texts > service.config.max_texts:
        raise Problem(
            400,
            "too_many_texts",
            f"{n_texts} texts, and the limit is {service.config.max_texts} a request; send them in "
            "several",
            param=param,
        )


async def computed(
    service: Service,
    exchange: Exchange,
    served: Served,
    texts: Sequence[Item],
    compute: Callable[[float], Awaitable[T]],
    *,
    priority: Priority,
    timeout_s: float | None = None,
    is_inference: bool = True,
) -> T:
    """Have the engine compute something about texts, when there is room for it.

    Args:
        service: The server.
        exchange: The request.
        served: The model.
        texts: What it is about.
        compute: Asks the engine, within the seconds it is given.
        priority: How urgent it is.
        timeout_s: A shorter time than the server gives.
        is_inference: Whether that takes workers.

    Raises:
        Problem: There is no room, or too much text.
        EmbellamaError: It could not be done.
    """
    cost = _cost(texts)
    room, n_texts = service.room, len(texts)
    for _ in range(MAX_EVICTIONS):
        # a load is waited for outside the room: it says nothing of the pace, and the others go on
        async with service.models.use(served, within_s=exchange.remaining_s, cost=cost) as info:
            try:
                with room.admitted(
                    served.name,
                    cost=cost,
                    n_texts=n_texts,
                    priority=priority,
                    is_inference=is_inference,
                ) as on_tokens:
                    await _check_tokens(service, info, texts, cost)
                    watched = Watched(on_tokens)
                    try:
                        with told_of_computed(watched):
                            return await compute(_left(exchange, timeout_s))
                    finally:
                        exchange.queue_s += watched.queue_s
                        exchange.inference_s += watched.inference_s
            except ModelNotFoundError:
                continue  # unloaded since: idle, or to make room for another model
    raise Problem(
        503,
        "overloaded",
        f"the model {served.name!r} was unloaded {MAX_EVICTIONS} times to make room for others; "
        "try again later, or give the server a higher memory limit",
        retry_after_s=RETRY_AFTER_S,
    )


def _left(exchange: Exchange, timeout_s: float | None) -> float:
    left = exchange.remaining_s
    return left if timeout_s is None else min(timeout_s, left)


def _cost(texts: Sequence[Item]) -> int:
    return sum(
        len(text) if isinstance(text, str) else len(text) * BYTES_AN_ID for text in texts
    ) + COST_A_TEXT * len(texts)


async def _check_tokens(
    service: Service, info: ModelInfo, texts: Sequence[Item], cost: int
) -> None:
    """Refuse more tokens than a request may have; counted only where there may be as many."""
    limit = service.config.max_request_tokens
    # no vocabulary makes more tokens than bytes, of which a character has up to four
    if 4 * cost <= limit:
        return
    n_bytes = sum(len(text.encode(errors="replace")) for text in texts if isinstance(text, str))
    n_ids = sum(len(text) for text in texts if not isinstance(text, str))
    most = n_bytes + n_ids + info.n_special_tokens * len(texts)
    if most <= limit:
        return
    n_tokens = await count_tokens(service, info.name, texts, most=limit)
    if n_tokens > limit:
        raise Problem(
            400,
            "too_many_tokens",
            f"{n_tokens} tokens or more, prompts included, and the limit is {limit} a request; "
            "send the texts in several",
        )


def _note(exchange: Exchange, done: EmbeddingResult) -> None:
    """Keep what logs and metrics say, and tell the client what made the vectors, and of cuts."""
    n_truncated = sum(report.truncated for report in done.texts)
    exchange.n_tokens += done.usage.n_tokens
    exchange.n_truncated += n_truncated
    exchange.n_cached += sum(report.cached for report in done.texts)
    exchange.tokenize_s += done.timings.tokenize_s
    exchange.extra_headers.append((FINGERPRINT, done.fingerprint.encode()))
    if n_truncated:
        exchange.extra_headers.append((TRUNCATED, str(n_truncated).encode()))


def details_of(done: EmbeddingResult) -> dict[str, Any]:
    """Return what became of each text, for a client that asked."""
    return {
        "model": done.model,
        "model_fingerprint": done.model_fingerprint,
        "fingerprint": done.fingerprint,
        "texts": [
            {
                "n_tokens": report.n_tokens,
                "n_dropped": report.n_dropped,
                "n_windows": report.n_windows,
                "cached": report.cached,
            }
            for report in done.texts
        ],
        "timings": {
            "total_s": done.timings.total_s,
            "queue_s": done.timings.queue_s,
            "tokenize_s": done.timings.tokenize_s,
            "inference_s": done.timings.inference_s,
        },
    }


def writable(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows whose type JSON can hold: half precision is written as the same numbers."""
    return rows.astype(np.float32) if rows.dtype == np.float16 else rows

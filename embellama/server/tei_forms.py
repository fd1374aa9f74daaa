"""What text-embeddings-inference's endpoints share: its inputs, headers and description."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from importlib import metadata
from typing import Any

from embellama._parallel import available_cores
from embellama.model_info import ModelInfo
from embellama.server.embedding import check_count
from embellama.server.exchange import Exchange
from embellama.server.options import overflow_of
from embellama.server.problems import Problem
from embellama.server.schemas.common import Extension
from embellama.server.served import Served
from embellama.server.service import Service
from embellama.server.token_ids import Item
from embellama.types import Overflow

TAG = "Text Embeddings Inference"

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_POOLINGS = {"last": "last_token"}


def items_of(service: Service, inputs: object, field: str = "inputs") -> list[Item]:
    """Return a request's texts and token ids as a list, also where it is one alone.

    Raises:
        Problem: There is none, or there are more than the server takes.
    """
    is_ids = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], int)
    items: Any = inputs if isinstance(inputs, list) and not is_ids else [inputs]
    if not items:
        raise Problem(400, "no_texts", f"`{field}` is an empty list; send a text", param=field)
    check_count(service, len(items), field)
    return list(items)


def cut_of(service: Service, truncate: bool | None) -> Overflow:
    """Return `overflow_of` where there are no windows to average: pairs, and tokens' vectors."""
    by_default: Overflow = "truncate" if service.config.overflow == "truncate" else "error"
    return overflow_of(truncate) or by_default


def refuse(extension: Extension | None, unused: Set[str], why: str) -> None:
    """Refuse options that would be without effect.

    Raises:
        Problem: There is one; 422.
    """
    given = sorted(extension.model_fields_set & unused) if extension is not None else []
    if given:
        raise Problem(
            400, "invalid_request", f"embellama.{given[0]}: {why}", param=f"embellama.{given[0]}"
        )


def headers_of(
    exchange: Exchange, served: Served, items: Sequence[Item]
) -> tuple[tuple[bytes, bytes], ...]:
    """Return how much it was and how long it took, in milliseconds.

    Source: ``From<ResponseMetadata> for HeaderMap`` in its router/src/lib.rs.
    """
    on_gpu = served.info is not None and served.info.n_layers_offloaded > 0
    total_s = time.perf_counter() - exchange.started_s
    numbers = {
        b"x-compute-time": 1e3 * total_s,
        b"x-compute-characters": sum(map(len, items)),
        b"x-compute-tokens": exchange.n_tokens,
        b"x-total-time": 1e3 * total_s,
        b"x-tokenization-time": 1e3 * exchange.tokenize_s,
        b"x-queue-time": 1e3 * exchange.queue_s,
        b"x-inference-time": 1e3 * exchange.inference_s,
    }
    return (
        (b"x-compute-type", b"gpu" if on_gpu else b"cpu"),
        *((name, b"%d" % number) for name, number in numbers.items()),
    )


def described(service: Service, info: ModelInfo) -> dict[str, Any]:
    """Describe a model and the limits of the server."""
    if info.pooling_type == "rank":
        # the one label of a cross-encoder is called so unless its author chose another name
        labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        model_type: dict[str, Any] = {"reranker": labels}
    else:
        pooling = _POOLINGS.get(info.pooling_type, info.pooling_type)
        model_type = {"embedding": {"pooling": pooling}}
    return {
        "model_id": info.name,
        "model_sha": info.fingerprint,
        "model_dtype": _DTYPES.get(info.file_type, info.file_type),
        "model_type": model_type,
        "max_concurrent_requests": service.config.max_requests,
        "max_input_length": info.n_ctx,
        "max_batch_tokens": info.layouts.max_batch_tokens,
        "max_batch_requests": info.config.max_batch_requests,
        "max_client_batch_size": service.config.max_texts,
        "auto_truncate": service.config.overflow == "truncate",
        "tokenization_workers": service.engine.config.n_jobs or available_cores(),
        "version": metadata.version("embellama"),
        "sha": None,
        "docker_label": None,
    }

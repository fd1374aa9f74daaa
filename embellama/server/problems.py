"""What goes wrong with a request: a status, a message, and the form that each API gives it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

from embellama.errors import (
    BatchError,
    ContextError,
    EmbellamaError,
    InputTooLongError,
    InvalidInputError,
)

RETRY_AFTER_S = 1.0
"""Where nothing better is known of when there is room again."""


class Problem(Exception):  # noqa: N818 - the word of RFC 9457; not every one is an error of ours
    """A request that is not answered with what it asked for.

    Attributes:
        status: The HTTP status.
        code: What it is, for programs.
        message: What it is, for people: the value, the limit and what mends it.
        param: The part of the request that it is about, e.g. ``"input[3]"``.
        retry_after_s: Seconds after which the same request may succeed.
        indices: Positions of the texts that it is about.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        indices: tuple[int, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.indices = indices


ErrorForm: TypeAlias = Callable[[Problem], tuple[int, dict[str, Any]]]
"""Gives a problem the status and the body that the clients of an API expect."""

_STATUSES: Mapping[str, int] = {
    "configuration": 400,
    "invalid_input": 400,
    "invalid_input_type": 400,
    "empty_input": 400,
    "input_too_long": 400,
    "model_not_found": 404,
    "model_load": 400,
    "gguf_format": 400,
    "download": 502,
    "overloaded": 503,
    "context": 503,
    "timeout": 504,
    "missing_dependency": 501,
}
"""Of our errors by their code; 500 for all others."""


def problem_of(
    error: EmbellamaError, *, field: str | None = None, form: ErrorForm | None = None
) -> Problem:
    """Translate an error of the engine.

    Args:
        error: The error.
        field: The field of the request that has the texts.
        form: The API it came by, whose words for what mends it are said.
    """
    status = _STATUSES.get(error.code, 500)
    indices: tuple[int, ...] = ()
    if isinstance(error, InvalidInputError):
        indices = error.indices
    elif isinstance(error, BatchError):
        indices = error.failed_indices
    param = f"{field}[{indices[0]}]" if field and indices else None
    if param is None and field and isinstance(error, InvalidInputError):
        param = field
    retry = RETRY_AFTER_S if error.retryable or isinstance(error, ContextError) else None
    return Problem(
        status,
        error.code,
        _message(error, field, form),
        param=param,
        retry_after_s=retry if status in (429, 503) else None,
        indices=indices,
    )


_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def openai_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Return OpenAI's error object, which most servers of this kind share."""
    kind = _OPENAI_TYPES.get(problem.status)
    if kind is None:
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
    error: dict[str, Any] = {
        "message": problem.message,
        "type": kind,
        "param": problem.param,
        "code": problem.code,
    }
    if problem.indices:
        error["indices"] = list(problem.indices)
    return problem.status, {"error": error}


def _message(error: EmbellamaError, field: str | None, form: ErrorForm | None) -> str:
    """Return what the engine says, with what the client can send where that is about arguments."""
    cut = None if form is None else _CUTS.get(form)
    if cut is None or not isinstance(error, InputTooLongError) or not error.indices:
        return str(error)
    counts = zip(error.indices[:_NAMED], error.n_tokens, strict=False)
    named = ", ".join(f"{index} ({n_tokens} tokens)" for index, n_tokens in counts)
    n_more = len(error.indices) - _NAMED
    more = f" and {n_more} more" if n_more > 0 else ""
    what = "document" if field in ("documents", "texts") else "text"
    return (
        f"over the limit of {error.limit} tokens (special tokens included): {what} {named}{more}; "
        f"split them, or send {cut} to have them cut"
    )


_TEI_STATUSES = {
    "Empty": 400,
    "Validation": 413,
    "Tokenizer": 422,
    "Backend": 424,
    "Overloaded": 429,
    "Unhealthy": 503,
}
"""Source: ``From<&ErrorType> for StatusCode`` in its router/src/http/server.rs."""

_TEI_TYPES = {
    "model_load": "Backend",
    "gguf_format": "Backend",
    "no_texts": "Empty",
    "empty_input": "Empty",
    "invalid_input": "Tokenizer",
    "invalid_input_type": "Tokenizer",
    "wrong_model": "Backend",
    "overloaded": "Overloaded",
    "rate_limited": "Overloaded",
}


def tei_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Return text-embeddings-inference's error, with the status that goes with its type.

    A text that is too long is "Validation" there, and so 413. What HTTP itself has a
    status for keeps it, and a body of another form gets axum's 422.
    """
    status, code = problem.status, problem.code
    fallback = "Validation" if status < 500 else "Unhealthy" if status == 503 else "Backend"
    kind = _TEI_TYPES.get(code, fallback)
    if code == "invalid_request":
        status = 422
    elif status in (400, 500, 503) and code != "invalid_json":
        status = _TEI_STATUSES[kind]
    return status, {"error": problem.message, "error_type": kind}


def ollama_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Return Ollama's error, a message alone."""
    return problem.status, {"error": problem.message}


def rerank_error(problem: Problem) -> tuple[int, dict[str, Any]]:
    """Return an error that Cohere's clients (message) and Jina's (detail) find."""
    return problem.status, {"message": problem.message, "detail": problem.message}


_NAMED = 5

_CUTS: Mapping[ErrorForm, str] = {
    openai_error: '"embellama": {"overflow": "truncate"}',
    tei_error: '"truncate": true',
    ollama_error: '"truncate": true',
    rerank_error: '"truncation": true',
}
"""How each API says that what is too long is cut."""


def response_bytes(problem: Problem) -> bytes:
    """Return a whole HTTP/1.1 answer that ends its connection, for what is refused unread."""
    status, content = openai_error(problem)
    body = json.dumps(content).encode()
    retry = "" if problem.retry_after_s is None else f"retry-after: {problem.retry_after_s:.0f}\r\n"
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body

"""What can go wrong at an endpoint, and the forms of errors, for its description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from embellama.server.endpoint import Endpoint
from embellama.server.problems import (
    ErrorForm,
    Problem,
    ollama_error,
    openai_error,
    rerank_error,
    tei_error,
)
from embellama.server.schemas.common import ErrorReply, Reply
from embellama.server.schemas.rerank import RerankErrorReply
from embellama.server.schemas.tei import ErrorReply as TEIErrorReply


class OllamaErrorReply(Reply):
    """An error in Ollama's form."""

    error: str


_REPLIES: Mapping[ErrorForm, tuple[str, type[Reply]]] = {
    openai_error: ("OpenAIError", ErrorReply),
    tei_error: ("TEIError", TEIErrorReply),
    ollama_error: ("OllamaError", OllamaErrorReply),
    rerank_error: ("RerankError", RerankErrorReply),
}

ERROR_SCHEMAS: Mapping[str, Any] = {
    name: TypeAdapter(reply).json_schema() for name, reply in _REPLIES.values()
}
"""What errors look like, by the name that the description gives them."""

# A status and a code of each kind: what is refused before the request is read, …
_CONNECTION = (
    (400, "bad_request"),
    (408, "request_timeout"),
    (431, "headers_too_large"),
    (503, "too_many_connections"),
)
# … by who asks, …
_CALLERS = ((403, "host_refused"), (429, "rate_limited"))
_KEYS = ((401, "missing_api_key"),)
_NO_KEY = ((403, "no_admin_key"),)
# … by what it takes, …
_BODY = (
    (400, "invalid_json"),
    (400, "invalid_request"),
    (413, "body_too_large"),
    (415, "unsupported_media_type"),
    (503, "overloaded"),
)
# … and where it is done.
_WORK = (
    (400, "invalid_input"),
    (400, "empty_input"),
    (400, "too_many_texts"),
    (400, "wrong_model"),
    (400, "no_texts"),
    (404, "model_not_found"),
    (501, "missing_dependency"),
    (503, "loading"),
    (504, "timeout"),
)
_ALWAYS = ((404, "not_found"), (500, "internal"))


def reference_name(form: ErrorForm) -> str:
    """Return the name of a form among `ERROR_SCHEMAS`."""
    return _REPLIES[form][0]


def problems_of(endpoint: Endpoint, *, has_keys: bool) -> Iterator[tuple[Problem, bool]]:
    """Yield one problem of each kind, and whether it comes from the endpoint or from before it."""
    kinds = [*_ALWAYS]
    if endpoint.access != "open":
        kinds += (*_CALLERS, *(_KEYS if has_keys else ()))
    if endpoint.access == "admin":
        kinds += _NO_KEY
    if endpoint.adapter is not None:
        kinds += (*_BODY, *_WORK)
    for status, code in kinds:
        yield Problem(status, code, ""), True
    for status, code in _CONNECTION:
        yield Problem(status, code, ""), False

"""The OpenAPI description of the endpoints, made of what they are and what they take and give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from importlib import metadata
from typing import Any, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from embellama.server.endpoint import Endpoint
from embellama.server.openapi_errors import ERROR_SCHEMAS, problems_of, reference_name
from embellama.server.problems import openai_error

_Key: TypeAlias = tuple[int, JsonSchemaMode]

_MODULES = "embellama__server__"
_REFERENCE = "#/components/schemas/{model}"
_PLACE = re.compile(r"\{(\w+)(?::\w+)?\}")

_SECURITY: tuple[dict[str, list[str]], ...] = ({"bearer": []}, {"apiKey": []})

_HEADERS = {
    "x-request-id": {
        "description": "The client's, or one made here: what logs and traces call the request.",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which the same request may succeed.",
        "schema": {"type": "integer", "minimum": 1},
    },
}

_DESCRIBED = ("application/json", "text/plain", "text/html")

_CALLED = {"tei": "TEI", "openai": "OpenAI"}

EXAMPLES: Mapping[str, Any] = {
    "/v1/embeddings": {"input": ["The cat sat on the mat.", "A dog barked."]},
    "/embed": {"inputs": ["The cat sat on the mat.", "A dog barked."], "truncate": True},
    "/embed_all": {"inputs": "The cat sat on the mat."},
    "/similarity": {
        "inputs": {"source_sentence": "The cat sat on the mat.", "sentences": ["A dog barked."]}
    },
    "/tokenize": {"inputs": "The cat sat on the mat."},
    "/": {"inputs": "The cat sat on the mat."},
    "/rerank": {"query": "Who sat on the mat?", "texts": ["The cat did.", "A dog barked."]},
    "/v1/rerank": {"query": "Who sat on the mat?", "documents": ["The cat did.", "A dog barked."]},
    "/v2/rerank": {"query": "Who sat on the mat?", "documents": ["The cat did.", "A dog barked."]},
    "/api/embed": {"model": "minilm", "input": ["The cat sat on the mat.", "A dog barked."]},
    "/api/embeddings": {"model": "minilm", "prompt": "The cat sat on the mat."},
    "/api/show": {"model": "minilm"},
    "/admin/models/load": {"name": "minilm", "model": "minilm:Q8_0"},
    "/admin/models/unload": {"name": "minilm"},
    "/cache/warm": {"input": ["The cat sat on the mat."]},
}
"""A body for each path that takes one."""


@lru_cache
def describe(endpoints: tuple[Endpoint, ...], *, has_keys: bool = False) -> dict[str, Any]:
    """Return the OpenAPI 3.1 description of endpoints; made once, so leave it as it is.

    Args:
        endpoints: All of them.
        has_keys: Whether the server was started with keys.
    """
    # the files that a page needs are no API
    endpoints = tuple(e for e in endpoints if e.media_type in _DESCRIBED)
    schemas, components = _schemas(endpoints)
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, schemas, has_keys=has_keys)
        paths.setdefault(_PLACE.sub(r"{\1}", endpoint.path), {})[endpoint.method.lower()] = (
            operation
        )
    tags = list(dict.fromkeys(endpoint.tag for endpoint in endpoints))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "embellama",
            "description": "Text embeddings of GGUF models, under the APIs that clients know.",
            "version": metadata.version("embellama"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": _responses(endpoints, has_keys=has_keys),
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _schemas(
    endpoints: Sequence[Endpoint],
) -> tuple[dict[_Key, Any], dict[str, Any]]:
    """Return what each endpoint (its id) takes and gives, and the components that these name."""
    wanted: list[tuple[int, JsonSchemaMode, TypeAdapter[Any]]] = []
    for endpoint in endpoints:
        if endpoint.adapter is not None:
            wanted.append((id(endpoint), "validation", endpoint.adapter))
        if endpoint.reply is not None:
            wanted.append((id(endpoint), "serialization", TypeAdapter(endpoint.reply)))
    found, shared = TypeAdapter.json_schemas(wanted, ref_template=_REFERENCE)
    components = shared.get("$defs", {})
    names = {name: _short(name) for name in components}
    assert len(set(names.values())) == len(names), "two components would have one name"
    schemas = {key: _renamed(schema, names) for key, schema in found.items()}
    named = {names[name]: _renamed(schema, names) for name, schema in components.items()}
    return schemas, dict(sorted({**named, **ERROR_SCHEMAS}.items()))


def _short(name: str) -> str:
    """Return ``TeiEmbedRequest`` of ``embellama__server__schemas__tei__EmbedRequest``."""
    if not name.startswith(_MODULES):
        return name
    module, _, called = name.rpartition("__")
    api = module.rpartition("__")[2]
    return _CALLED.get(api, api.capitalize()) + called


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(part, names) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _REFERENCE.format(model=names[value.rpartition("/")[2]])
        if key == "$ref" and isinstance(value, str)
        else _renamed(value, names)
        for key, value in schema.items()
    }


def _operation(
    endpoint: Endpoint, schemas: Mapping[_Key, Any], *, has_keys: bool
) -> dict[str, Any]:
    called = _PLACE.sub(r"\1", endpoint.path).strip("/") or "root"
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}_{called}"),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _answers(endpoint, schemas)
        | {
            str(status): {"$ref": f"#/components/responses/{_response_name(status, forms)}"}
            for status, forms in _forms(endpoint, has_keys=has_keys).items()
        },
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        }
        for name in _PLACE.findall(endpoint.path)
    ]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.adapter is not None:
        content: dict[str, Any] = {"schema": schemas[id(endpoint), "validation"]}
        if endpoint.path in EXAMPLES:
            content["example"] = EXAMPLES[endpoint.path]
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    if has_keys and endpoint.access != "open":
        operation["security"] = list(_SECURITY)
    return operation


def _answers(endpoint: Endpoint, schemas: Mapping[_Key, Any]) -> dict[str, Any]:
    schema = schemas.get((id(endpoint), "serialization"))
    if schema is None:
        is_json = endpoint.media_type == "application/json"
        schema = {"type": "object"} if is_json else {"type": "string"}
    return {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "headers": _headers(status),
            "content": {endpoint.media_type: {"schema": schema}},
        }
        for status in endpoint.statuses
    }


def _forms(endpoint: Endpoint, *, has_keys: bool) -> dict[int, list[str]]:
    """Return the forms of errors that an endpoint may answer with, by status.

    They are those of its API, or OpenAI's where a request does not get as far as that.
    """
    forms: dict[int, dict[str, None]] = {}
    for problem, is_reached in problems_of(endpoint, has_keys=has_keys):
        form = endpoint.error_form if is_reached else openai_error
        status, _ = form(problem)
        forms.setdefault(status, {})[reference_name(form)] = None
    return {
        status: list(found)
        for status, found in sorted(forms.items())
        if status not in endpoint.statuses
    }


def _responses(endpoints: Sequence[Endpoint], *, has_keys: bool) -> dict[str, Any]:
    """Describe every answer that is an error, once."""
    described = {}
    for endpoint in endpoints:
        for status, forms in _forms(endpoint, has_keys=has_keys).items():
            references = [{"$ref": _REFERENCE.format(model=name)} for name in forms]
            schema = references[0] if len(references) == 1 else {"anyOf": references}
            described[_response_name(status, forms)] = {
                "description": HTTPStatus(status).phrase,
                "headers": _headers(status),
                "content": {"application/json": {"schema": schema}},
            }
    return dict(sorted(described.items()))


def _response_name(status: int, forms: Iterable[str]) -> str:
    return f"{'Or'.join(forms)}{status}"


def _headers(status: int) -> dict[str, Any]:
    names = ["x-request-id", *(["retry-after"] if status in (429, 503) else [])]
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}

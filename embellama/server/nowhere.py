"""Paths where nothing is: what the client may have meant, in the form of the API it speaks."""

from __future__ import annotations

from collections.abc import Collection

from embellama.server.bodies import Receive
from embellama.server.endpoint import Endpoint
from embellama.server.exchange import Answer, Exchange
from embellama.server.gate import Gate, Scope, Send
from embellama.server.problems import Problem, ollama_error, openai_error, tei_error
from embellama.server.service import Service

_MAX_SHOWN = 100

_OLLAMA_OTHERS = ("pull", "push", "create", "copy", "delete", "generate", "chat", "blobs")
"""What Ollama does and this server does not. Source: docs/api.md of ollama/ollama."""

_TEI_OTHERS = ("/predict", "/embed_sparse", "/decode")
"""The same of text-embeddings-inference. Source: the paths of its OpenAPI description."""


class Nowhere:
    """Answers for every path that has no endpoint, as an ASGI application.

    Args:
        service: What gates work with.
        paths: The paths that have one.
    """

    def __init__(self, service: Service, paths: Collection[str]) -> None:
        self._paths = paths
        self._gates = {
            form: Gate(
                service,
                (Endpoint("GET", "unknown", self._refuse, "", "", error_form=form, access="open"),),
            )
            for form in (openai_error, ollama_error, tei_error)
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say that there is nothing, and what there is."""
        path = scope["path"]
        form = openai_error
        if path.startswith("/api/"):
            form = ollama_error
        elif path in _TEI_OTHERS:
            form = tei_error
        # whatever the method, the path is wrong
        found = {**scope, "method": "GET", "path_params": {"path": path}}
        await self._gates[form](found, receive, send)

    async def _refuse(self, service: Service, exchange: Exchange, body: None) -> Answer:
        path = exchange.path_params["path"]
        raise Problem(
            404, "not_found", f"there is nothing at {path[:_MAX_SHOWN]!r}; {self._hint(path)}"
        )

    def _hint(self, path: str) -> str:
        meant = (path.rstrip("/"), f"/v1{path.rstrip('/')}", path.removeprefix("/v1"))
        for other in meant:
            if other in self._paths and other != path:
                return f"did you mean {other}?"
        if path.startswith("/api/") and path.split("/")[2] in _OLLAMA_OTHERS:
            return (
                "this server makes embeddings of the models that it was started with, and neither "
                "generates text nor manages models here (administrators: POST /admin/models/load)"
            )
        if path in _TEI_OTHERS:
            return "of text-embeddings-inference there are /embed, /embed_all, /rerank and others"
        return "GET /openapi.json lists what there is"

"""OpenTelemetry spans of requests. The only importer of opentelemetry."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, Self

from embellama.errors import MissingDependencyError
from embellama.logs import log
from embellama.server.exchange import Exchange

FLUSH_S = 1.0
"""How long the end of a server waits for a collector that does not take the last spans."""

_SERVICE = "embellama"

_SENDERS = ("urllib3.connectionpool", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
"""Loggers that tell of every attempt to reach a collector, each time in several lines."""


class _Sender:
    """An exporter of spans that says once in words that nobody takes them, until somebody does.

    Args:
        exporter: Sends them.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._sending = threading.local()
        self._is_warned = False
        self._is_shut = False
        for name in _SENDERS:
            logging.getLogger(name).addFilter(self._kept)

    def export(self, spans: Any) -> Any:
        """Send spans; what the libraries below say of it is one warning of ours."""
        self._sending.now = True
        try:
            result = self._exporter.export(spans)
        finally:
            self._sending.now = False
        if result.name != "SUCCESS":
            self._warn()
        elif not self._is_shut:
            self._is_warned = False
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait for what is under way."""
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self) -> None:
        """Send nothing more, and give up what is being tried."""
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()

    def forget(self) -> None:
        """Let those loggers say again what they like."""
        for name in _SENDERS:
            logging.getLogger(name).removeFilter(self._kept)

    def _kept(self, record: logging.LogRecord) -> bool:
        if not getattr(self._sending, "now", False) or record.levelno < logging.WARNING:
            return True
        self._warn()
        return False

    def _warn(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            log.warning(
                "embellama.traces.refused",
                why="no collector takes the traces: start one, say where it is by "
                "OTEL_EXPORTER_OTLP_ENDPOINT, or leave --traces out",
            )


class Tracing:
    """Makes a span of each request and sends it by OTLP over HTTP, to where ``OTEL_*`` says.

    The names of attributes are those of OpenTelemetry's conventions for HTTP servers where they
    have one. The path is sent where it is the same for all requests of its endpoint: what clients
    put into the places of others is theirs.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/

    Args:
        exporter: Takes the spans instead.

    Raises:
        MissingDependencyError: The extra ``otel`` is not installed.
    """

    def __init__(self, exporter: Any = None) -> None:
        try:
            from opentelemetry import propagate, trace  # noqa: PLC0415
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        except ImportError as exc:
            raise MissingDependencyError(
                f"--traces needs {exc.name}: pip install 'embellama[otel]'", extra="otel"
            ) from exc
        resource = Resource.create()  # with what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": _SERVICE}))
        self._sender = _Sender(exporter if exporter is not None else OTLPSpanExporter())
        # not the process's own provider: what else runs in it keeps its own
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        sender: Any = self._sender  # no SpanExporter, which is not imported above
        self._provider.add_span_processor(BatchSpanProcessor(sender))
        self._tracer = self._provider.get_tracer("embellama.server")
        self._propagate = propagate
        self._trace = trace

    def begin(self, method: str, path: str, scope: Mapping[str, Any], exchange: Exchange) -> Any:
        """Begin the span of a request, as a part of its client's where it says so.

        Args:
            method: Of the request, or ``"_OTHER"``.
            path: The pattern of its path.
            scope: As ASGI has it.
            exchange: The request.
        """
        fields = self._propagate.get_global_textmap().fields
        carrier = {
            name: exchange.headers[key].decode("latin-1")
            for name in fields
            if (key := name.lower().encode()) in exchange.headers
        }
        client, server = scope.get("client"), scope.get("server")
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.route": path,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if "{" not in path:
            attributes["url.path"] = path
        if client:
            attributes["client.address"] = client[0]
        if server:
            attributes["server.address"], attributes["server.port"] = server[:2]
        return self._tracer.start_span(
            f"{'HTTP' if method == '_OTHER' else method} {path}",
            context=self._propagate.extract(carrier) if carrier else None,
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
        )

    def ids(self, span: Any) -> dict[str, str]:
        """Return what the log says of a span."""
        context = span.get_span_context()
        if not context.is_valid:  # OTEL_SDK_DISABLED
            return {}
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def end(self, span: Any, exchange: Exchange, status: int | None, code: str | None) -> None:
        """End the span of a request.

        Args:
            span: The span.
            exchange: What was noted of the request.
            status: Its HTTP status; None where it was not answered.
            code: What it failed with.
        """
        if span.is_recording():
            attributes: dict[str, Any] = {
                "embellama.request_id": exchange.request_id,
                "embellama.n_texts": exchange.n_texts,
                "embellama.n_tokens": exchange.n_tokens,
                "embellama.n_truncated": exchange.n_truncated,
                "embellama.n_cached": exchange.n_cached,
                "embellama.queue_s": exchange.queue_s,
                "embellama.tokenize_s": exchange.tokenize_s,
                "embellama.inference_s": exchange.inference_s,
            }
            if exchange.model is not None:
                attributes["embellama.model"] = exchange.model
            if status is not None:
                attributes["http.response.status_code"] = status
            if code is not None:
                attributes["error.type"] = code
            if status is None or status >= 500:
                span.set_status(self._trace.StatusCode.ERROR)
            span.set_attributes(attributes)
        span.end()

    def flush(self) -> bool:
        """Send what is there now; False where that took too long."""
        return bool(self._provider.force_flush())

    def close(self) -> None:
        """Send what is left, for as long as `FLUSH_S`."""
        too_long = threading.Timer(FLUSH_S, self._sender.shutdown)
        too_long.daemon = True
        too_long.start()
        try:
            self._provider.shutdown()
        finally:
            too_long.cancel()
            self._sender.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

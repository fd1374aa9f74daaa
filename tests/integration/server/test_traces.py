"""Spans of requests, as a collector gets them."""

import logging
import signal
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from embellama.errors import MissingDependencyError
from embellama.server import tracing
from embellama.server.tracing import Tracing
from tests.integration.server.raw import Raw
from tests.integration.server.running import Running, Stuck, server_process, serving
from tests.integration.server.scraped import WAIT_S, eventually
from tests.integration.server.test_metrics import posted

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""Source: the example of https://www.w3.org/TR/trace-context/"""


class Collector:
    """An OTLP collector: keeps what it is sent over HTTP."""

    def __init__(self):
        self.requests = []
        self.paths = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["content-length"]))
                collector.paths.add(self.path)
                collector.requests.append(ExportTraceServiceRequest.FromString(data))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self):
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def service_names(self):
        return {
            values_of(resource.resource)["service.name"]
            for request in self.requests
            for resource in request.resource_spans
        }


def values_of(thing):
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in thing.attributes
    }


@contextmanager
def traced(tiny_path, config=None, **options):
    """Run a server whose spans are kept; gives it and what reads them."""
    exporter = InMemorySpanExporter()
    with serving(config, models={"tiny": tiny_path}, **options) as running:
        running.service.tracing = Tracing(exporter)

        def spans():
            running.service.tracing.close()
            return exporter.get_finished_spans()

        yield running, spans


def test_a_collector_gets_the_spans_of_a_server(tiny_path):
    with Collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        started = server_process(f"tiny={tiny_path}", "--traces", env=variables)
        with started as (process, url, lines):
            raw = Raw(url)
            body = posted("/v1/embeddings", {"input": ["a c", "ab"]})
            raw.send(body.replace(b"\r\n", f"\r\ntraceparent: {PARENT}\r\n".encode(), 1))
            assert raw.answer()[0] == 200
            raw.socket.close()
        assert process.returncode == 0
    assert collector.paths == {"/v1/traces"}
    assert collector.service_names == {"embellama"}
    [span] = collector.spans  # and none of the probes
    assert span.name == "POST /v1/embeddings"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.trace_id.hex() == PARENT.split("-")[1]
    assert span.parent_span_id.hex() == PARENT.split("-")[2]
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert 0 < span.end_time_unix_nano - span.start_time_unix_nano < WAIT_S * 1e9
    found = values_of(span)
    [answered] = [line for line in lines if line["event"] == "embellama.request.answered"]
    assert answered["trace_id"] == span.trace_id.hex()
    assert answered["span_id"] == span.span_id.hex()
    assert found.pop("embellama.queue_s") == pytest.approx(answered["queue_s"], abs=1e-6)
    assert found.pop("embellama.inference_s") == pytest.approx(answered["inference_s"], abs=1e-6)
    assert found.pop("embellama.tokenize_s") > 0
    assert found == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/v1/embeddings",
        "network.protocol.version": "1.1",
        "client.address": "127.0.0.1",
        "server.address": "127.0.0.1",
        "server.port": int(url.rpartition(":")[2]),
        "embellama.request_id": answered["request_id"],
        "embellama.model": "tiny",
        "embellama.n_texts": 2,
        "embellama.n_tokens": 8,
        "embellama.n_truncated": 0,
        "embellama.n_cached": 0,
    }


def test_an_error_names_its_code_and_nothing_that_was_sent(tiny_path):
    told = "told-to-nobody"
    with traced(tiny_path) as (running, spans):
        for path in (f"/{told}", f"/v1/models/{told}", f"/v1/models?{told}"):
            running.request(path)
        running.request("/v1/embeddings", {"input": "a", "model": told})
        running.request("/v1/embeddings", method="DELETE")
        found = spans()
    assert told not in str([span.to_json() for span in found])
    assert [(span.name, span.attributes.get("error.type")) for span in found] == [
        ("GET unknown", "not_found"),
        ("GET /v1/models/{id:path}", "model_not_found"),
        ("GET /v1/models", None),
        ("POST /v1/embeddings", "model_not_found"),
        ("HTTP /v1/embeddings", "method_not_allowed"),
    ]
    assert {span.status.status_code.name for span in found} == {"UNSET"}
    assert {span.parent for span in found} == {None}


def test_a_fault_of_the_server_is_an_error_and_so_is_a_client_that_left(tiny_path, monkeypatch):
    stuck = Stuck()
    with traced(tiny_path, backend=stuck.backend) as (running, spans):
        raw = Raw(running.url)
        raw.send(posted("/v1/embeddings", {"input": "a"}))
        assert stuck.is_computing.wait(WAIT_S)
        raw.socket.close()
        eventually(lambda: running.service.metrics.n_in_flight == 0, "it is still under way")
        stuck.may_go_on.set()

        def fails(endpoint, body):
            raise RuntimeError

        monkeypatch.setattr("embellama.server.gate.parsed", fails)
        assert running.request("/v1/embeddings", {"input": "a"})[0] == 500
        gone, failed = spans()
    assert gone.attributes["error.type"] == "client_closed"
    assert "http.response.status_code" not in gone.attributes
    assert failed.attributes["error.type"] == "internal"
    assert {gone.status.status_code.name, failed.status.status_code.name} == {"ERROR"}


def test_the_environment_names_the_service_and_may_turn_it_off(tiny_path, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "search")
    with traced(tiny_path) as (running, spans):
        running.request("/v1/models")
        [span] = spans()
    assert span.resource.attributes["service.name"] == "search"
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with traced(tiny_path, {"access_log": True}) as (running, spans):
        with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as events:
            assert running.request("/v1/models")[0] == 200
        assert spans() == ()
    assert [name for event in events for name in event if name == "trace_id"] == []


def test_a_collector_that_is_not_there_holds_up_nothing(tiny_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with serving(models={"tiny": tiny_path}) as running, Tracing() as running.service.tracing:
        assert running.request("/v1/models")[0] == 200
        begin = time.monotonic()
        running.service.tracing.close()
        assert time.monotonic() - begin < tracing.FLUSH_S + 1.5


def test_a_collector_that_is_not_there_is_one_warning_with_what_to_do(tiny_path):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    arguments = (f"tiny={tiny_path}", "--traces", "--no-access-log")
    with server_process(*arguments, env=variables) as (process, url, lines):
        running = Running(None, url)
        for _ in range(3):
            assert running.json("/v1/embeddings", {"input": "a"})[0] == 200
            time.sleep(0.2)
        eventually(lambda: any("traces" in line["event"] for line in lines), "nothing is said")
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    [warned] = [line for line in lines if line["level"] != "info"]
    assert warned["event"] == "embellama.traces.refused"
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in warned["why"]


def test_that_nobody_takes_spans_is_said_again_when_somebody_did_in_between(tiny_path):
    class Moody(InMemorySpanExporter):
        results = iter(["FAILURE", "FAILURE", "SUCCESS", "FAILURE"])

        def export(self, spans):
            return SpanExportResult[next(self.results)]

    with serving(models={"tiny": tiny_path}) as running, Tracing(Moody()) as made:
        running.service.tracing = made
        with structlog.testing.capture_logs() as events:
            for _ in range(4):
                assert running.request("/v1/models")[0] == 200
                assert made.flush()
    assert [event["event"] for event in events].count("embellama.traces.refused") == 2


def test_other_lines_of_the_libraries_below_are_kept(caplog):
    with Tracing(InMemorySpanExporter()):
        logging.getLogger("urllib3.connectionpool").warning("of a download")
    assert caplog.messages == ["of a download"]
    assert logging.getLogger("urllib3.connectionpool").filters == []


def test_without_the_extra_it_is_said_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embellama\[otel\]'") as caught:
        Tracing()
    assert caught.value.extra == "otel"

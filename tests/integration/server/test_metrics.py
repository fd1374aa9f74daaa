"""What Prometheus reads."""

import json
import threading

from embellama.cache import EmbeddingCache
from tests.integration.server.raw import Raw
from tests.integration.server.running import Stuck, serving
from tests.integration.server.scraped import WAIT_S, Page, eventually

NAMES = {
    "embellama_requests": "counter",
    "embellama_requests_in_flight": "gauge",
    "embellama_requests_rejected": "counter",
    "embellama_request_duration_seconds": "histogram",
    "embellama_errors": "counter",
    "embellama_texts": "counter",
    "embellama_texts_truncated": "counter",
    "embellama_tokens": "counter",
    "embellama_queue_wait_seconds": "histogram",
    "embellama_tokenization_seconds": "histogram",
    "embellama_inference_seconds": "histogram",
    "embellama_queue_requests": "gauge",
    "embellama_queue_texts": "gauge",
    "embellama_queue_estimated_wait_seconds": "gauge",
    "embellama_model_loaded": "gauge",
    "embellama_model_memory_bytes": "gauge",
    "embellama_microbatches": "counter",
    "embellama_microbatch_tokens": "counter",
    "embellama_microbatch_slots": "counter",
    "embellama_microbatch_seconds": "counter",
    "embellama_microbatch_fill_ratio": "gauge",
    "embellama_cache_hits": "counter",
    "embellama_cache_misses": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_cpu_seconds": "counter",
    "process_start_time_seconds": "gauge",
}
"""Dashboards and alerts are written with these; counters' samples end in ``_total``."""


def posted(path, body):
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def test_the_names_and_kinds_are_those_that_dashboards_know(server):
    server.request("/v1/embeddings", {"input": "a"})
    page = Page(server)
    assert {family.name: family.type for family in page.families} == NAMES
    assert page.media_type == "text/plain; version=0.0.4; charset=utf-8"
    assert not [sample for sample in page.samples if sample.name.endswith("_created")]


def test_a_request_is_counted_where_it_belongs(minilm_path):
    with serving(models={"minilm": minilm_path}, cache=EmbeddingCache.in_memory()) as running:
        texts = ["a cat", "a dog", "a word " * 600]
        body = {"input": texts, "embellama": {"overflow": "truncate"}}
        status, value = running.json("/v1/embeddings", body)
        assert status == 200
        running.json("/v1/embeddings", body | {"input": texts[:2]})
        page = Page(running)
        model = {"model": "minilm"}
        answered = {"method": "POST", "path": "/v1/embeddings"}
        assert page.value("embellama_requests_total", status="200", **answered) == 2
        assert page.value("embellama_request_duration_seconds_count", **answered) == 2
        assert page.value("embellama_texts_total", **model) == 5
        n_tokens = value["usage"]["total_tokens"]
        assert n_tokens > 512
        assert page.value("embellama_tokens_total", **model) > n_tokens
        assert page.value("embellama_texts_truncated_total", **model) == 1
        assert page.value("embellama_queue_wait_seconds_count", **model) == 1
        assert page.value("embellama_inference_seconds_sum", **model) > 0
        assert page.value("embellama_cache_hits_total", **model) == 2
        assert page.value("embellama_cache_misses_total", **model) == 3
        assert page.value("embellama_microbatch_tokens_total", **model) == n_tokens
        assert page.value("embellama_microbatch_slots_total", **model) >= n_tokens
        assert 0 < page.value("embellama_microbatch_fill_ratio", **model) <= 1
        assert page.value("embellama_microbatch_seconds_total", **model) > 0
        assert page.value("embellama_model_loaded", **model) == 1
        assert page.value("embellama_model_memory_bytes", **model) > 40_000_000
        assert page.value("process_resident_memory_bytes") > 40_000_000
        # its own request is not under way, or nobody would ever see none
        assert page.value("embellama_requests_in_flight") == 0


def test_what_clients_make_up_is_no_label(server):
    server.request("/v1/embeddings", {"input": "a", "model": "made-up-model"})
    server.request("/v1/models/made-up-name")
    server.request("/made-up/path")
    server.request("/v1/embeddings", method="PURGE")
    server.request("/v1/embeddings", {"input": "a"}, headers={"X-Request-Id": "made-up-id"})
    page = Page(server)
    assert not {label for label in page.labels if "made-up" in label or "PURGE" in label}
    assert page.value("embellama_requests_total", path="unknown", status="404") >= 1
    assert page.value("embellama_requests_total", path="/v1/models/{id:path}", status="404") >= 1
    assert page.value("embellama_requests_total", method="other", status="405") >= 1
    assert page.value("embellama_errors_total", code="model_not_found") >= 2


def test_a_client_that_goes_away_frees_its_place(tiny_path):
    stuck = Stuck()
    with serving(models={"tiny": tiny_path}, backend=stuck.backend) as running:
        room = running.service.room
        client = Raw(running.url)
        client.send(posted("/v1/embeddings", {"input": ["a", "c"]}))
        assert stuck.is_computing.wait(WAIT_S)
        page = Page(running)
        assert page.value("embellama_requests_in_flight") == 1
        assert page.value("embellama_queue_requests") == 1
        assert page.value("embellama_queue_texts") == 2
        client.socket.close()
        eventually(lambda: room.n_requests == 0, "its place is still taken")
        eventually(lambda: running.service.metrics.n_in_flight == 0, "it is still under way")
        page = Page(running)
        gone = {"path": "/v1/embeddings", "status": "499"}
        assert page.value("embellama_requests_total", **gone) == 1
        assert page.value("embellama_errors_total", code="client_closed") == 1
        assert page.value("embellama_requests_in_flight") == 0
        assert page.value("embellama_queue_texts") == 0
        assert page.value("embellama_texts_total") == 0
        stuck.may_go_on.set()
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200


def test_a_client_that_goes_away_with_half_a_body_is_counted_too(tiny_path):
    with serving(models={"tiny": tiny_path}) as running:
        client = Raw(running.url)
        client.send(posted("/v1/embeddings", {"input": "a"})[:-3])
        eventually(lambda: running.service.metrics.n_in_flight == 1, "it does not begin")
        client.socket.close()
        eventually(lambda: running.service.metrics.n_in_flight == 0, "it is still under way")
        assert Page(running).value("embellama_requests_total", status="499") == 1


def test_what_was_told_to_come_later_is_counted_with_why(tiny_path):
    stuck = Stuck()
    config = {"max_requests": 1, "rate_limit": 0.001, "rate_burst": 3}
    with serving(config, models={"tiny": tiny_path}, backend=stuck.backend) as running:
        first = threading.Thread(target=running.json, args=("/v1/embeddings", {"input": "a"}))
        first.start()
        assert stuck.is_computing.wait(WAIT_S)
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 503
        page = Page(running)  # the last of the burst
        assert page.value("embellama_requests_rejected_total", reason="overloaded") == 1
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 429
        stuck.may_go_on.set()
        first.join()
        text = running.service.metrics.page().decode()
    assert 'embellama_requests_rejected_total{model="",reason="rate_limited"} 1.0' in text


def test_a_model_that_is_not_loaded_takes_no_memory(tiny_path):
    with serving({"lazy": True}, models={"tiny": tiny_path}) as running:
        page = Page(running)
        assert [s.value for s in page.samples if s.name == "embellama_model_loaded"] == [0]
        assert "embellama_model_memory_bytes" not in {sample.name for sample in page.samples}
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200
        assert Page(running).value("embellama_model_memory_bytes", model="tiny") > 0


def test_counts_need_a_key_where_there_are_keys(tiny_path):
    config = {"api_keys": ("prom: a-long-key",)}
    with serving(config, models={"tiny": tiny_path}) as running:
        assert running.request("/metrics")[0] == 401
        page = Page(running, headers={"Authorization": "Bearer a-long-key"})
        assert page.value("embellama_errors_total", code="missing_api_key") == 1


def test_counts_may_be_kept(tiny_path):
    with serving({"metrics": False}, models={"tiny": tiny_path}) as running:
        assert running.json("/metrics")[0] == 404

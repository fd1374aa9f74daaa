import timeit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from embellama.server.exchange import Exchange
from embellama.server.metrics import SECONDS, Metrics


def exchange_of(model=None, **noted):
    return Exchange("id", {}, {}, b"", "127.0.0.1", 0.0, model=model, **noted)


def samples(metrics):
    """Read the page back as Prometheus does: value by name and labels."""
    families = text_string_to_metric_families(metrics.page().decode())
    return {
        (sample.name, *map(str, dict(sorted(sample.labels.items())).values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_answer_adds_to_its_path_and_its_model():
    metrics = Metrics()
    done = exchange_of(
        "m", n_texts=3, n_tokens=20, n_truncated=1, queue_s=0.2, tokenize_s=0.002, inference_s=0.04
    )
    for _ in range(2):
        metrics.answered("POST", "/v1/embeddings", 200, done, 0.3)
    found = samples(metrics)
    path = ("POST", "/v1/embeddings")
    assert found["embellama_requests_total", "POST", "m", "/v1/embeddings", "200"] == 2
    assert found["embellama_request_duration_seconds_count", *path] == 2
    assert found["embellama_request_duration_seconds_sum", *path] == pytest.approx(0.6)
    assert found["embellama_texts_total", "m"] == 6
    assert found["embellama_tokens_total", "m"] == 40
    assert found["embellama_texts_truncated_total", "m"] == 2
    assert found["embellama_queue_wait_seconds_sum", "m"] == pytest.approx(0.4)
    assert found["embellama_tokenization_seconds_sum", "m"] == pytest.approx(0.004)
    assert found["embellama_inference_seconds_sum", "m"] == pytest.approx(0.08)


def test_what_the_cache_answered_has_not_waited():
    metrics = Metrics()
    metrics.answered("POST", "/embed", 200, exchange_of("m", n_texts=1, n_cached=1), 0.001)
    found = samples(metrics)
    assert found["embellama_texts_total", "m"] == 1
    assert found["embellama_queue_wait_seconds_count", "m"] == 0
    assert found["embellama_inference_seconds_count", "m"] == 0


def test_an_error_counts_no_texts_and_only_those_that_may_succeed_later_are_rejected():
    metrics = Metrics()
    for status, code in ((400, "empty_input"), (429, "rate_limited"), (503, "overloaded")):
        metrics.answered("POST", "/embed", status, exchange_of("m", n_texts=5), 0.001)
        metrics.refused(status, code, "m")
    metrics.refused(431, "headers_too_large")  # of no model, and not rejected
    found = samples(metrics)
    assert ("embellama_texts_total", "m") not in found
    errors = {key[1:]: value for key, value in found.items() if key[0] == "embellama_errors_total"}
    codes = ["empty_input", "rate_limited", "overloaded"]
    assert errors == dict.fromkeys([*((code, "m") for code in codes), ("headers_too_large", "")], 1)
    rejected = {key[1:] for key in found if key[0] == "embellama_requests_rejected_total"}
    assert rejected == {("m", code) for code in codes[1:]}


@pytest.mark.parametrize(
    ("duration_s", "least_bound"),
    [(0.0, "0.0005"), (0.0005, "0.0005"), (0.00051, "0.001"), (60.0, "60.0"), (61.0, "+Inf")],
)
def test_a_duration_is_in_the_first_bucket_that_holds_it_and_all_after(duration_s, least_bound):
    metrics = Metrics()
    metrics.answered("GET", "/info", 200, exchange_of(), duration_s)
    name = "embellama_request_duration_seconds_bucket"
    buckets = {key[1]: value for key, value in samples(metrics).items() if key[0] == name}
    bounds = [*map(str, SECONDS), "+Inf"]
    assert list(buckets) == bounds
    at = bounds.index(least_bound)
    assert list(buckets.values()) == [0] * at + [1] * (len(bounds) - at)


def test_under_way_is_what_the_gate_says():
    metrics = Metrics()
    metrics.n_in_flight += 2
    assert samples(metrics)["embellama_requests_in_flight",] == 2


def test_counting_an_answer_is_a_small_part_of_it():
    metrics = Metrics()
    done = exchange_of("m", n_texts=1, n_tokens=9, queue_s=1e-4, tokenize_s=1e-4, inference_s=1e-3)

    def count():
        metrics.n_in_flight += 1
        metrics.answered("POST", "/v1/embeddings", 200, done, 0.002)
        metrics.n_in_flight -= 1

    taken = timeit.repeat(count, number=2000, repeat=20)
    # 2 µs alone on a machine; coverage and other people take their share
    assert min(taken) / 2000 < 15e-6
    assert samples(metrics)["embellama_texts_total", "m"] == 40_000

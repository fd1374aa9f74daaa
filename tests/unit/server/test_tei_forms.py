"""What text-embeddings-inference's endpoints share, and the form of its errors.

Source of statuses: ``From<&ErrorType> for StatusCode`` in its router/src/http/server.rs.
"""

from types import SimpleNamespace

import pytest

from embellama.errors import (
    BatchError,
    ConfigurationError,
    ContextError,
    EmbeddingTimeoutError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    ModelLoadError,
    OverloadedError,
)
from embellama.server.problems import Problem, problem_of, tei_error
from embellama.server.schemas.common import Extension
from embellama.server.schemas.tei import ErrorReply, RootRequest
from embellama.server.tei_forms import described, headers_of, refuse


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (EmptyInputError("empty", indices=(0,)), 400, "Empty"),
        (InputTooLongError("long", indices=(0,), n_tokens=(9,), limit=8), 413, "Validation"),
        (ConfigurationError("no such prompt"), 413, "Validation"),
        (InvalidInputError("not Unicode", indices=(0,)), 422, "Tokenizer"),
        (BatchError("failed", failed_indices=(0,)), 424, "Backend"),
        (ModelLoadError("no memory"), 424, "Backend"),
        (OverloadedError("full"), 429, "Overloaded"),
        (ContextError("closed"), 503, "Unhealthy"),
        (EmbeddingTimeoutError("late", timeout_s=1.0), 504, "Backend"),
    ],
)
def test_errors_of_the_engine(error, status, kind):
    found, content = tei_error(problem_of(error))
    assert (found, content) == (status, {"error": str(error), "error_type": kind})
    ErrorReply.model_validate(content)


@pytest.mark.parametrize(
    ("status", "code", "wanted", "kind"),
    [
        (400, "no_texts", 400, "Empty"),
        (400, "too_many_texts", 413, "Validation"),
        (400, "too_many_tokens", 413, "Validation"),
        (400, "wrong_model", 424, "Backend"),
        (400, "invalid_request", 422, "Validation"),
        (400, "invalid_json", 400, "Validation"),
        (401, "missing_api_key", 401, "Validation"),
        (404, "model_not_found", 404, "Validation"),
        (413, "body_too_large", 413, "Validation"),
        (429, "rate_limited", 429, "Overloaded"),
        (500, "internal", 424, "Backend"),
        (503, "overloaded", 429, "Overloaded"),
        (503, "loading", 503, "Unhealthy"),
    ],
)
def test_problems_of_the_server(status, code, wanted, kind):
    assert tei_error(Problem(status, code, "why")) == (wanted, {"error": "why", "error_type": kind})


def info(**changes):
    values = {
        "name": "docs",
        "fingerprint": "f" * 32,
        "file_type": "Q8_0",
        "pooling_type": "last",
        "n_ctx": 128,
        "n_layers_offloaded": 3,
        "layouts": SimpleNamespace(max_batch_tokens=256),
        "config": SimpleNamespace(max_batch_requests=64),
    }
    return SimpleNamespace(**(values | changes))


def test_a_quantized_model_with_last_token_pooling():
    service = SimpleNamespace(
        config=SimpleNamespace(max_requests=9, max_texts=8, overflow="truncate"),
        engine=SimpleNamespace(config=SimpleNamespace(n_jobs=2)),
    )
    found = described(service, info())
    assert found["model_dtype"] == "Q8_0"
    assert found["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert found["auto_truncate"] is True
    assert (found["max_concurrent_requests"], found["max_client_batch_size"]) == (9, 8)
    assert (found["max_input_length"], found["max_batch_tokens"]) == (128, 256)


def test_headers_name_the_gpu():
    exchange = SimpleNamespace(
        started_s=0.0, n_tokens=5, tokenize_s=0.0021, queue_s=0.0, inference_s=0.5
    )
    found = dict(headers_of(exchange, SimpleNamespace(info=info()), ["abc", [1, 2]]))
    assert found[b"x-compute-type"] == b"gpu"
    assert found[b"x-compute-characters"] == b"5"
    assert (found[b"x-tokenization-time"], found[b"x-inference-time"]) == (b"2", b"500")


def test_only_options_that_were_given_are_refused():
    refuse(None, {"details"}, "no")
    refuse(Extension(kind="query"), {"details"}, "no")
    with pytest.raises(Problem, match=r"embellama\.details: no") as caught:
        refuse(Extension(details=False), {"details"}, "no")
    assert caught.value.param == "embellama.details"


def test_what_the_root_takes():
    body = b'{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {}}'
    assert RootRequest.model_validate_json(body).inputs.sentences == ["b"]
    body = b'{"inputs": ["a", [1, 2]], "truncation_direction": "left"}'
    found = RootRequest.model_validate_json(body)
    assert (found.inputs, found.from_left) == (["a", [1, 2]], True)

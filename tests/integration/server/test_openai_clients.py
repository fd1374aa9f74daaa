"""The official ``openai`` client for Python, unchanged: what it gives, raises, and tries again."""

import asyncio
import base64
import threading
import time

import numpy as np
import openai
import pytest

from embellama.embedding import BATCH_TOLERANCE
from tests.integration.server.running import serving
from tests.reference_texts import SENTENCES

KEY = "a-key-of-the-tests"
TEXT = "The cat sat on the mat."
LONG = [f"{n} " + " ".join(SENTENCES[n % 60 : n % 60 + 4]) for n in range(200)]
"""Over a second of work."""


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def own(server):
    return server.service.engine.embed("minilm", TEXT)


def rows_of(answer):
    return np.array([item.embedding for item in answer.data], dtype=np.float32)


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"user": "somebody"}])
def test_a_text(client, own, options):
    answer = client.embeddings.create(model="minilm", input=TEXT, **options)
    np.testing.assert_array_equal(rows_of(answer), [own])
    assert (answer.model, answer.object) == ("minilm", "list")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens == 9


def test_base64_as_it_is(client, own):
    answer = client.embeddings.create(model="minilm", input=TEXT, encoding_format="base64")
    coded = base64.b64decode(answer.data[0].embedding)
    np.testing.assert_array_equal(np.frombuffer(coded, "<f4"), own)


def test_texts_in_order(client, server):
    texts = SENTENCES[:50]
    answer = client.embeddings.create(model="minilm", input=texts)
    assert [item.index for item in answer.data] == list(range(50))
    own = server.service.engine.embed_batch("minilm", texts)
    assert np.abs(rows_of(answer) - own).max() <= BATCH_TOLERANCE["F16"]


def test_dimensions_and_our_own_options(client, server):
    extra = {"embellama": {"force_dimensions": True, "prompt": "query: ", "details": True}}
    answer = client.embeddings.create(
        model="minilm", input=TEXT, dimensions=64, encoding_format="float", extra_body=extra
    )
    own = server.service.engine.embed(
        "minilm", TEXT, dimensions=64, force_dimensions=True, prompt="query: "
    )
    np.testing.assert_array_equal(rows_of(answer), [own])
    assert answer.model_extra["embellama"]["texts"][0]["n_tokens"] == 11


def test_many_at_a_time(server):
    texts = [f"text {number}" for number in range(64)]
    own = server.service.engine.embed_batch("minilm", texts)

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
            calls = (client.embeddings.create(model="minilm", input=text) for text in texts)
            return await asyncio.gather(*calls), await client.models.list()

    answers, models = asyncio.run(ask())
    rows = np.concatenate([rows_of(answer) for answer in answers])
    assert np.abs(rows - own).max() <= BATCH_TOLERANCE["F16"]
    assert [model.id for model in models.data] == ["minilm"]


def test_models(client):
    listed = client.models.list()
    assert [model.id for model in listed] == ["minilm"]
    one = client.models.retrieve("minilm")
    assert one == listed.data[0]
    assert (one.owned_by, one.object) == ("embellama", "model")
    with pytest.raises(openai.NotFoundError, match="there are: minilm"):
        client.models.retrieve("gpt-4")


def test_a_raw_answer_has_its_id_and_what_made_it(client, server):
    raw = client.embeddings.with_raw_response.create(
        model="minilm", input=TEXT, extra_headers={"x-request-id": "mine-1"}
    )
    assert raw.request_id == "mine-1"
    told = server.service.engine.embed_detailed("minilm", [TEXT])
    assert raw.headers["x-embellama-fingerprint"] == told.fingerprint


# ── errors ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "error", "code", "param"),
    [
        ({"input": ""}, openai.BadRequestError, "empty_input", "input[0]"),
        ({"input": ["a", "b " * 600]}, openai.BadRequestError, "input_too_long", "input[1]"),
        ({"input": []}, openai.BadRequestError, "invalid_request", "input"),
        ({"input": [1, 2]}, openai.BadRequestError, "invalid_input", "input[0]"),
        ({"input": "a", "dimensions": 7}, openai.BadRequestError, "configuration", "dimensions"),
        ({"input": "a", "model": "gpt-4"}, openai.NotFoundError, "model_not_found", "model"),
    ],
)
def test_errors_are_the_clients_own(client, options, error, code, param):
    with pytest.raises(error) as caught:
        client.embeddings.create(**{"model": "minilm", **options})
    assert (caught.value.code, caught.value.param) == (code, param)
    assert caught.value.body["message"] in str(caught.value)
    assert caught.value.request_id


def test_keys(minilm_path):
    config = {"api_keys": [f"tests: {KEY}"]}
    with serving(config, models={"minilm": minilm_path}) as server:

        def ask(key):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
                client.models.list()
                return client.embeddings.create(model="minilm", input=TEXT)

        assert len(ask(KEY).data[0].embedding) == 384
        with pytest.raises(openai.AuthenticationError) as caught:
            ask("another-key")
        assert caught.value.code == "invalid_api_key"
        assert caught.value.type == "authentication_error"
        assert "another-key" not in str(caught.value)


def test_it_waits_as_long_as_it_is_told_and_tries_again(minilm_path):
    config = {"rate_limit": 0.5, "rate_burst": 1}
    with serving(config, models={"minilm": minilm_path}) as server:
        base = {"base_url": f"{server.url}/v1", "api_key": "any"}
        with openai.OpenAI(**base, max_retries=0) as hasty, openai.OpenAI(**base) as patient:
            hasty.embeddings.create(model="minilm", input=TEXT)
            with pytest.raises(openai.RateLimitError) as caught:
                hasty.embeddings.create(model="minilm", input=TEXT)
            told_s = int(caught.value.response.headers["retry-after"])
            assert told_s == 2
            assert (caught.value.code, caught.value.type) == ("rate_limited", "rate_limit_error")
            began = time.monotonic()
            patient.embeddings.create(model="minilm", input=TEXT)
            # by itself it would have come again after 0.5 s at most, and then after 1 s
            assert time.monotonic() - began >= told_s - 0.1


def test_a_server_without_room_is_tried_again(minilm_path):
    """One long request has the only place; the next client gets through when it is done."""
    with serving({"max_requests": 1}, models={"minilm": minilm_path}) as server:
        base = {"base_url": f"{server.url}/v1", "api_key": "any"}
        with openai.OpenAI(**base, max_retries=0) as hasty, openai.OpenAI(**base) as patient:
            answers = []
            thread = threading.Thread(
                target=lambda: answers.append(patient.embeddings.create(model="minilm", input=LONG))
            )
            thread.start()
            while not server.service.room.n_requests and thread.is_alive():
                time.sleep(0.001)
            with pytest.raises(openai.InternalServerError) as caught:
                hasty.embeddings.create(model="minilm", input=TEXT)
            assert (caught.value.status_code, caught.value.code) == (503, "overloaded")
            assert int(caught.value.response.headers["retry-after"]) >= 1
            patient.with_options(max_retries=30).embeddings.create(model="minilm", input=TEXT)
            thread.join()
            assert len(answers[0].data) == len(LONG)


def test_a_client_that_does_not_wait(client, server):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.05).embeddings.create(model="minilm", input=LONG)
    end = time.monotonic() + 20
    while server.service.room.n_requests:
        assert time.monotonic() < end, "it is computed for nobody"
        time.sleep(0.01)
    assert client.embeddings.create(model="minilm", input=TEXT).data

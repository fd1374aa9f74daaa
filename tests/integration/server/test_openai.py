"""OpenAI's API over HTTP: the engine's own numbers, the documented form, and errors in words."""

import base64
import json

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse, Embedding, Model
from openai.types.create_embedding_response import Usage

from embellama.embedding import BATCH_TOLERANCE
from embellama.server.schemas.common import Extension
from tests.integration.server.running import serving
from tests.reference_texts import SENTENCES

TEXT = "The cat sat on the mat."
TYPES = {"float32": "<f4", "float16": "<f4", "binary": "i1", "ubinary": "u1"}


def asked(server, texts, **options):
    status, value = server.json("/v1/embeddings", {"input": texts, **options})
    assert status == 200, value
    return value


def rows_of(value, dtype="<f4"):
    """Return the vectors of an answer in either encoding."""
    vectors = [item["embedding"] for item in value["data"]]
    if isinstance(vectors[0], str):
        vectors = [
            np.frombuffer(base64.b64decode(vector, validate=True), dtype) for vector in vectors
        ]
    return np.array(vectors, dtype=np.dtype(dtype).newbyteorder("="))


def refused(server, body, status=400):
    found, value = server.json("/v1/embeddings", body)
    assert found == status, value
    assert value.keys() == {"error"}
    assert {"message", "type", "param", "code"} <= value["error"].keys()
    return value["error"]


# ── the numbers ──────────────────────────────────────────────────────────────────────────────


def test_one_texts_vector_is_the_engines_own_to_the_last_bit(server):
    own = server.service.engine.embed("minilm", TEXT)
    for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        np.testing.assert_array_equal(rows_of(asked(server, TEXT, **options))[0], own)
        np.testing.assert_array_equal(rows_of(asked(server, [TEXT], **options))[0], own)


def test_base64_is_little_endian_float32(server):
    coded = asked(server, TEXT, encoding_format="base64")["data"][0]["embedding"]
    own = server.service.engine.embed("minilm", TEXT)
    assert base64.b64decode(coded) == own.astype("<f4").tobytes()


def test_both_encodings_of_a_batch_are_the_same_bits(server):
    texts = SENTENCES[:40]
    plain = rows_of(asked(server, texts, encoding_format="float"))
    coded = rows_of(asked(server, texts, encoding_format="base64"))
    own = server.service.engine.embed_batch("minilm", texts)
    # the same texts are packed into the same micro-batches when nobody else asks
    np.testing.assert_array_equal(plain, coded)
    np.testing.assert_array_equal(plain, own)


def test_a_batch_is_its_texts_alone_within_the_tolerance(server):
    texts = SENTENCES[:20]
    rows = rows_of(asked(server, texts))
    alone = np.stack([server.service.engine.embed("minilm", text) for text in texts])
    assert np.abs(rows - alone).max() <= BATCH_TOLERANCE["F16"]


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_every_precision_in_both_encodings(server, precision, encoding):
    options = {"encoding_format": encoding, "embellama": {"precision": precision}}
    rows = rows_of(asked(server, TEXT, **options), TYPES[precision])
    own = server.service.engine.embed("minilm", TEXT, precision=precision)
    assert rows.shape == (1, len(own))
    np.testing.assert_array_equal(rows[0], own.astype(rows.dtype))


def test_order_is_kept_for_as_many_texts_as_are_allowed(server):
    texts = [f"text {number % 700} of many" for number in range(2048)]
    value = asked(server, texts, encoding_format="base64")
    assert [item["index"] for item in value["data"]] == list(range(2048))
    rows = rows_of(value)
    np.testing.assert_array_equal(rows[:648], rows[1400:])  # the same ones
    own = server.service.engine.embed_batch("minilm", texts[:700:50])
    assert np.abs(rows[:700:50] - own).max() <= BATCH_TOLERANCE["F16"]


def test_one_more_is_refused(server):
    error = refused(server, {"input": ["a"] * 2049})
    assert error["code"] == "too_many_texts"
    assert error["message"].startswith("2049 texts, and the limit is 2048")


def test_dimensions_are_the_engines(server):
    options = {"dimensions": 8, "embellama": {"force_dimensions": True}}
    for encoding in ("float", "base64"):
        rows = rows_of(asked(server, [TEXT, "b"], encoding_format=encoding, **options))
        own = server.service.engine.embed("minilm", TEXT, dimensions=8, force_dimensions=True)
        assert rows.shape == (2, 8)
        np.testing.assert_allclose(rows[0], own, atol=1e-3)
    rows = rows_of(asked(server, TEXT, **options))
    np.testing.assert_array_equal(rows[0], own)
    # without being forced: MiniLM was not trained for it
    error = refused(server, {"input": TEXT, "dimensions": 8})
    assert "force_dimensions" in error["message"]
    assert "385" in refused(server, {"input": TEXT, "dimensions": 385})["message"]


# ── the form ─────────────────────────────────────────────────────────────────────────────────


def test_the_answer_has_the_documented_fields_and_no_other(server):
    value = asked(server, [TEXT, "b"], model="minilm", user="somebody", unknown_field=[1])
    assert value.keys() == CreateEmbeddingResponse.model_fields.keys()
    assert (value["object"], value["model"]) == ("list", "minilm")
    assert value["usage"].keys() == Usage.model_fields.keys()
    for index, item in enumerate(value["data"]):
        assert item.keys() == Embedding.model_fields.keys()
        assert (item["object"], item["index"]) == ("embedding", index)
        assert len(item["embedding"]) == 384
        assert {type(number) for number in item["embedding"]} == {float}


def test_usage_is_the_engines_count(server):
    texts = [TEXT, "b", TEXT]
    counts = [server.service.engine.count_tokens("minilm", text) for text in texts]
    usage = asked(server, texts)["usage"]
    assert usage == {"prompt_tokens": sum(counts), "total_tokens": sum(counts)}
    cut = asked(server, "a " * 600, embellama={"overflow": "truncate"})["usage"]
    assert cut["total_tokens"] == server.service.models.find("minilm").info.n_ctx


def test_details_are_there_for_who_asks(server):
    options = {"details": True, "overflow": "truncate", "max_tokens": 5}
    told = asked(server, [TEXT, "b"], embellama=options)["embellama"]
    own = server.service.engine.embed_detailed(
        "minilm", [TEXT, "b"], overflow="truncate", max_tokens=5
    )
    assert told["fingerprint"] == own.fingerprint
    assert told["model_fingerprint"] == own.model_fingerprint
    assert told["texts"] == [
        {
            "n_tokens": report.n_tokens,
            "n_dropped": report.n_dropped,
            "n_windows": report.n_windows,
            "cached": False,
        }
        for report in own.texts
    ]
    assert told["texts"][0]["n_dropped"] > 0
    assert told["timings"]["inference_s"] > 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"overflow": "truncate"},
        {"normalization": "none"},
        {"prompt": "query: "},
        {"max_tokens": 9},
    ],
)
def test_a_header_says_what_made_the_vectors(server, options):
    _, headers, _ = server.request("/v1/embeddings", {"input": "a", "embellama": options})
    own = server.service.engine.embed_detailed("minilm", ["a"], **options)
    assert headers["x-embellama-fingerprint"] == own.fingerprint
    assert headers["x-embellama-truncated"] is None


def test_a_header_says_that_texts_were_cut(server):
    body = {"input": ["a " * 600, "b"], "embellama": {"overflow": "truncate"}}
    _, headers, _ = server.request("/v1/embeddings", body)
    assert headers["x-embellama-truncated"] == "1"


def test_the_extension_reaches_the_engine(server):
    engine = server.service.engine
    for options in ({"normalization": "none"}, {"normalization": 3}, {"prompt": "title: "}):
        rows = rows_of(asked(server, TEXT, embellama=options))
        np.testing.assert_array_equal(rows[0], engine.embed("minilm", TEXT, **options))
    long = " ".join(SENTENCES[:60])
    for overflow in ("truncate", "window"):
        rows = rows_of(asked(server, long, embellama={"overflow": overflow}))
        own = engine.embed("minilm", long, overflow=overflow)
        assert np.abs(rows[0] - own).max() <= BATCH_TOLERANCE["F16"]
    left = {"overflow": "truncate", "truncate_side": "left"}
    rows = rows_of(asked(server, long, embellama=left))
    np.testing.assert_array_equal(rows[0], engine.embed("minilm", long, **left))


def test_models_have_the_documented_fields(server):
    status, listed = server.json("/v1/models")
    assert status == 200
    assert (listed["object"], len(listed["data"])) == ("list", 1)
    one = server.json("/v1/models/minilm")[1]
    assert one == listed["data"][0]
    required = {name for name, field in Model.model_fields.items() if field.is_required()}
    assert one.keys() >= required
    assert (one["id"], one["object"], one["owned_by"]) == ("minilm", "model", "embellama")
    assert isinstance(one["created"], int)
    assert (one["n_embd"], one["state"]) == (384, "loaded")
    status, value = server.json("/v1/models/gpt-4")
    assert (status, value["error"]["param"]) == (404, "model")


def test_a_model_that_is_not_loaded_is_listed_too(minilm_path):
    with serving({"lazy": True}, models={"org/minilm": minilm_path}) as server:
        one = server.json("/v1/models/org/minilm")[1]
        assert (one["id"], one["state"]) == ("org/minilm", "unloaded")
        assert "n_embd" not in one
        assert asked(server, TEXT, model="org/minilm")["model"] == "org/minilm"
        assert server.json("/v1/models/org/minilm")[1]["state"] == "loaded"


# ── what cannot be ───────────────────────────────────────────────────────────────────────────

INPUT = "Input should be a text, or a list of at least one text, token id or list of token ids"


FAULTS = [
    # what is sent; where the fault is; what is said of it
    ({"input": {}}, "input", f"{INPUT}, not an object"),
    ({"input": []}, "input", f"{INPUT}, not an empty list"),
    ({"input": None}, "input", f"{INPUT}, not null"),
    ({"input": [None, "a"]}, "input", f"{INPUT}, not a list that begins with null"),
    ({"input": [{}]}, "input", f"{INPUT}, not a list that begins with an object"),
    ({"input": [1.5]}, "input", f"{INPUT}, not a list that begins with 1.5"),
    ({"input": [1, "a"]}, "input[1]", 'Input should be a valid integer, not "a"'),
    ({"input": ["a", 1]}, "input[1]", "Input should be a valid string, not 1"),
    ({"input": [[1], ["a"]]}, "input[1][0]", 'Input should be a valid integer, not "a"'),
    ({"input": [-1]}, "input[0]", "Input should be greater than or equal to 0, not -1"),
    ({}, "input", "Field required"),
    ({"dimensions": 0}, "dimensions", "Input should be greater than or equal to 1, not 0"),
    ({"dimensions": "8"}, "dimensions", 'Input should be a valid integer, not "8"'),
    ({"encoding_format": "x"}, "encoding_format", "Input should be 'float' or 'base64', not \"x\""),
    ({"model": 5}, "model", "Input should be a valid string, not 5"),
    ({"user": {}}, "user", "Input should be a valid string, not an object"),
    (
        {"embellama": {"kid": 1}},
        "embellama.kid",
        f"there is no such field; there are {', '.join(Extension.model_fields)}",
    ),
    (
        {"embellama": {"normalization": 65}},
        "embellama.normalization",
        "Input should be less than or equal to 64, not 65",
    ),
    (
        {"embellama": {"normalization": "l3"}},
        "embellama.normalization",
        "Input should be 'l2', 'none' or 'max_abs', not \"l3\"",
    ),
    ([], "body", "Input should be an object, not an empty list"),
]


@pytest.mark.parametrize(("body", "param", "message"), FAULTS)
def test_a_fault_is_one_sentence_that_names_its_field(server, body, param, message):
    if body and "input" not in body:
        body = {"input": "a", **body}
    error = refused(server, body)
    assert error["message"] == f"{param}: {message}"
    assert error["param"] == param
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")


def test_many_faults_of_one_list_are_one_message(server):
    error = refused(server, {"input": ["a", *range(1000)]})
    assert error["message"] == "input[1]: Input should be a valid string, not 0"


def test_what_is_said_back_is_short(server):
    long = "x" * 5000
    for body in ({"input": "a", "encoding_format": long}, {"input": "a", "embellama": {long: 1}}):
        assert len(refused(server, body)["message"]) < 300


def test_empty_and_long_texts_are_named_by_their_place(server):
    error = refused(server, {"input": ["a", "", "b", ""]})
    assert (error["code"], error["param"], error["indices"]) == ("empty_input", "input[1]", [1, 3])
    assert refused(server, {"input": ""})["indices"] == [0]
    error = refused(server, {"input": ["a", "b " * 600]})
    assert (error["code"], error["param"], error["indices"]) == ("input_too_long", "input[1]", [1])


def test_a_model_that_is_not_served(server):
    error = refused(server, {"input": "a", "model": "gpt-4"}, status=404)
    assert (error["code"], error["type"]) == ("model_not_found", "not_found_error")
    assert "there are: minilm" in error["message"]


def test_a_time_of_the_clients_own(server):
    body = {"input": SENTENCES * 20, "embellama": {"timeout_s": 0.001}}
    error = refused(server, body, status=504)
    assert error["code"] == "timeout"


def test_too_many_tokens_are_counted_before_they_are_computed(minilm_path):
    with serving({"max_request_tokens": 20}, models={"minilm": minilm_path}) as server:
        asked(server, ["a b c", "d e f"])  # 10 of them
        texts = ["a b c"] * 4 + [TEXT]
        n_tokens = sum(server.service.engine.count_tokens("minilm", text) for text in texts)
        error = refused(server, {"input": texts})
        assert error["code"] == "too_many_tokens"
        assert 20 < int(error["message"].split()[0]) <= n_tokens
        assert "tokens or more, prompts included, and the limit is 20" in error["message"]
        assert json.dumps(error)


def test_a_model_that_is_unloaded_at_the_last_moment_is_loaded_again(minilm_path, monkeypatch):
    with serving(models={"minilm": minilm_path}) as server:
        engine = server.service.engine
        embed = engine.aembed_detailed

        async def unloaded_first(*arguments, **options):
            monkeypatch.undo()
            engine.unload_model("minilm")
            return await embed(*arguments, **options)

        monkeypatch.setattr(engine, "aembed_detailed", unloaded_first)
        rows = rows_of(asked(server, TEXT))
        np.testing.assert_array_equal(rows[0], engine.embed("minilm", TEXT))

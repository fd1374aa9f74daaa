"""text-embeddings-inference's API: vectors, and what of them is refused.

Source of statuses and error types: router/src/http/server.rs of
huggingface/text-embeddings-inference.
"""

import json

import numpy as np
import pytest

from embellama import EngineConfig, ModelConfig, __version__
from tests.integration.server.running import serving

TEXT = "The cat sat on the mat."
OTHER = "Stock prices fell on Monday."
LONG = "first " + "word " * 600 + "last"


def own(server, text, **options):
    return server.service.engine.embed("minilm", text, **options)


def refused(answer):
    """Return (status, error type, message) of a refusal, which has nothing else."""
    status, value = answer
    assert set(value) == {"error", "error_type"}
    return status, value["error_type"], value["error"]


# ── /embed and / ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_a_bare_string_gives_a_list_of_one_vector(server, path):
    status, value = server.json(path, {"inputs": TEXT})
    assert (status, len(value)) == (200, 1)
    np.testing.assert_array_equal(np.array(value[0], dtype=np.float32), own(server, TEXT))


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_vectors_come_in_the_order_of_the_texts(server, path):
    status, value = server.json(path, {"inputs": [TEXT, OTHER, TEXT]})
    assert status == 200
    assert value[0] == value[2] != value[1]
    np.testing.assert_allclose(value[:2], [own(server, TEXT), own(server, OTHER)], atol=1e-5)


def test_what_it_took_is_in_the_headers(server):
    _, headers, _ = server.request("/embed", {"inputs": [TEXT, OTHER]})
    n_tokens = sum(server.service.engine.count_tokens("minilm", text) for text in (TEXT, OTHER))
    assert headers["x-compute-type"] == "cpu"
    assert headers["x-compute-characters"] == str(len(TEXT) + len(OTHER))
    assert headers["x-compute-tokens"] == str(n_tokens)
    assert int(headers["x-total-time"]) >= int(headers["x-inference-time"]) >= 0
    assert headers["x-embellama-fingerprint"]


def test_vectors_are_not_scaled_where_that_is_not_wanted(server):
    _, (plain,) = server.json("/embed", {"inputs": TEXT, "normalize": False})
    np.testing.assert_array_equal(
        np.array(plain, dtype=np.float32), own(server, TEXT, normalization="none")
    )
    assert np.linalg.norm(plain) > 1.5


@pytest.mark.parametrize(("direction", "side"), [("Left", "left"), ("Right", "right")])
def test_long_texts_are_cut_where_that_is_wanted(server, direction, side):
    body = {"inputs": LONG, "truncate": True, "truncation_direction": direction}
    _, headers, _ = server.request("/embed", body)
    assert headers["x-embellama-truncated"] == "1"
    _, (vector,) = server.json("/embed", body)
    np.testing.assert_array_equal(
        np.array(vector, dtype=np.float32),
        own(server, LONG, overflow="truncate", truncate_side=side),
    )


@pytest.mark.parametrize("truncate", [None, False])
def test_long_texts_are_named_otherwise(server, truncate):
    body = {"inputs": [TEXT, LONG], "truncate": truncate}
    status, kind, message = refused(server.json("/embed", body))
    assert (status, kind) == (413, "Validation")
    assert "text 1 (604 tokens)" in message


@pytest.mark.parametrize("path", ["/embed", "/", "/embed_all"])
def test_empty_texts_are_named(server, path):
    status, kind, message = refused(server.json(path, {"inputs": [TEXT, "", " "]}))
    assert (status, kind) == (400, "Empty")
    assert "text 1, 2" in message


@pytest.mark.parametrize("path", ["/embed", "/", "/embed_all", "/tokenize"])
def test_no_texts_at_all(server, path):
    answer = refused(server.json(path, {"inputs": []}))
    assert answer == (400, "Empty", "`inputs` is an empty list; send a text")


@pytest.mark.parametrize("path", ["/embed", "/embed_all", "/tokenize"])
def test_too_many_texts(server, path):
    status, kind, message = refused(server.json(path, {"inputs": ["a"] * 2049}))
    assert (status, kind) == (413, "Validation")
    assert message.startswith("2049 texts, and the limit is 2048")


@pytest.mark.parametrize(
    ("body", "status", "where"),
    [
        (b'{"inputs": 1}', 422, "inputs"),
        (b'{"inputs": "a", "normalize": "yes"}', 422, "normalize"),
        (b'{"inputs": "a", "truncation_direction": "up"}', 422, "truncation_direction"),
        (b'{"inputs": "a", "dimensions": 0}', 422, "dimensions"),
        (b'{"inputs": "a", "embellama": {"colour": 1}}', 422, "embellama.colour"),
        (b"{}", 422, "inputs"),
        (b"{", 400, "no sound JSON"),
        (b'{"inputs": ["a", "\\ud800"]}', 400, "no sound JSON"),
    ],
)
@pytest.mark.parametrize("path", ["/embed", "/"])
def test_bodies_of_another_form(server, path, body, status, where):
    headers = {"Content-Type": "application/json"}
    found, kind, message = refused(server.json(path, body, headers=headers))
    assert (found, kind) == (status, "Validation")
    assert where in message


def test_models_by_name(server):
    status, _ = server.json("/embed", {"inputs": TEXT, "model": "minilm"})
    assert status == 200
    status, kind, message = refused(server.json("/embed", {"inputs": TEXT, "model": "other"}))
    assert (status, kind) == (404, "Validation")
    assert "there are: minilm" in message


def test_other_methods(server):
    status, headers, _ = server.request("/embed")
    assert (status, headers["allow"]) == (405, "POST")


def test_no_room(tiny_path, monkeypatch):
    with serving(models={"tiny": tiny_path}) as server:
        monkeypatch.setattr(server.service.room, "_max_requests", 0)
        for path in ("/embed", "/embed_all", "/tokenize"):
            status, headers, data = server.request(path, {"inputs": "a"})
            assert (status, json.loads(data)["error_type"]) == (429, "Overloaded")
            assert int(headers["retry-after"]) >= 1


def test_while_the_model_is_being_loaded(tiny_path):
    with serving({"lazy": True}, models={"tiny": tiny_path}) as server:
        server.service.models.find("tiny").is_starting = True
        for path, body in (("/embed", {"inputs": "a"}), ("/info", None)):
            status, kind, message = refused(server.json(path, body))
            assert (status, kind) == (503, "Unhealthy")
            assert "is being loaded" in message
        server.service.models.find("tiny").is_starting = False
        assert server.json("/embed", {"inputs": "a"})[0] == 200


# ── token ids ────────────────────────────────────────────────────────────────────────────────


def test_token_ids_are_refused_by_default(server):
    for inputs in ([101, 102], [[101, 102], "a"]):
        status, kind, message = refused(server.json("/embed", {"inputs": inputs}))
        assert (status, kind) == (422, "Tokenizer")
        assert "--token-ids model" in message


def test_the_models_own_token_ids(minilm_path):
    with serving({"token_ids": "model"}, models={"minilm": minilm_path}) as server:
        ids = server.service.engine.tokenize("minilm", TEXT).tolist()
        for inputs, place in ((ids, 0), ([ids], 0), ([OTHER, ids], 1)):
            status, value = server.json("/embed", {"inputs": inputs})
            assert status == 200
            np.testing.assert_allclose(value[place], own(server, TEXT), atol=1e-5)
        _, value = server.json("/embed_all", {"inputs": ids})
        assert len(value[0]) == len(ids)
        status, kind, message = refused(server.json("/embed", {"inputs": ["a", [10**6]]}))
        assert (status, kind) == (422, "Tokenizer")
        assert "input 1 has the token id 1000000" in message


# ── embellama's own options ──────────────────────────────────────────────────────────────────


def test_options_of_embellama(server):
    options = {"overflow": "window", "normalization": "max_abs", "precision": "float16"}
    _, (vector,) = server.json("/embed", {"inputs": LONG, "embellama": options})
    np.testing.assert_array_equal(np.array(vector, np.float16), own(server, LONG, **options))


def test_options_without_effect_are_refused(server):
    body = {"inputs": TEXT, "embellama": {"details": True}}
    status, _, message = refused(server.json("/embed", body))
    assert status == 422
    assert message.startswith("embellama.details: ")
    body = {"inputs": TEXT, "embellama": {"precision": "binary"}}
    status, _, message = refused(server.json("/embed_all", body))
    assert status == 422
    assert message.startswith("embellama.precision: ")


def test_prompts_by_name(minilm_path):
    prompts = {"query": "query: ", "document": ""}
    model = ModelConfig(model_path=minilm_path, model_name="minilm", prompts=prompts)
    with serving(engine_config=EngineConfig(models=(model,))) as server:
        body = {"inputs": TEXT, "prompt_name": "query"}
        prompted = own(server, "query: " + TEXT, prompt="")
        _, (vector,) = server.json("/embed", body)
        np.testing.assert_array_equal(np.array(vector, dtype=np.float32), prompted)
        _, (rows,) = server.json("/embed_all", body)
        _, (tokens,) = server.json("/tokenize", body)
        assert len(rows) == len(tokens)
        assert [token["text"] for token in tokens[1:4]] == ["query", ":", "The"]
        assert tokens[3]["start"] == len("query: ")
        for path in ("/embed", "/embed_all", "/tokenize"):
            wrong = {"inputs": TEXT, "prompt_name": "other"}
            status, kind, message = refused(server.json(path, wrong))
            assert (status, kind) == (413, "Validation")
            assert "'query', 'document'" in message


# ── /embed_all ───────────────────────────────────────────────────────────────────────────────


def test_every_token_has_a_vector(server):
    status, value = server.json("/embed_all", {"inputs": [TEXT, OTHER]})
    assert status == 200
    own_rows = server.service.engine.embed_tokens("minilm", [TEXT, OTHER])
    for rows, tokens in zip(value, own_rows, strict=True):
        np.testing.assert_allclose(rows, tokens.vectors, atol=1e-4)
    _, bare = server.json("/embed_all", {"inputs": TEXT})
    assert [len(rows) for rows in bare] == [len(value[0])]
    # they are as the model leaves them: their mean is the text's vector before it is scaled
    plain = own(server, TEXT, normalization="none")
    np.testing.assert_allclose(np.mean(bare[0], axis=0), plain, atol=1e-4)


def test_token_vectors_of_cut_texts(server):
    status, kind, message = refused(server.json("/embed_all", {"inputs": [TEXT, LONG]}))
    assert (status, kind) == (413, "Validation")
    assert "text 1" in message
    body = {"inputs": LONG, "truncate": True}
    _, (right,) = server.json("/embed_all", body)
    _, (left,) = server.json("/embed_all", body | {"truncation_direction": "Left"})
    limit = server.service.models.find("minilm").info.n_ctx
    assert len(right) == len(left) == limit
    assert right != left


def test_an_answer_that_would_be_too_large_is_refused(server, monkeypatch):
    limit = "embellama.server.routes.tei_tokens.MAX_COMPONENTS"
    n_tokens = server.service.engine.count_tokens("minilm", TEXT)
    monkeypatch.setattr(limit, 2 * n_tokens * 384)
    status, _ = server.json("/embed_all", {"inputs": [TEXT, TEXT]})
    assert status == 200
    status, kind, message = refused(server.json("/embed_all", {"inputs": [TEXT, TEXT, TEXT]}))
    assert (status, kind) == (413, "Validation")
    assert message.startswith("the vectors of ")
    assert "tokens or more, and the limit is" in message


# ── /similarity ──────────────────────────────────────────────────────────────────────────────


def similar(source, sentences, **parameters):
    body = {"inputs": {"source_sentence": source, "sentences": sentences}}
    return body | ({"parameters": parameters} if parameters else {})


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_cosines_with_the_source_sentence(server, path):
    status, value = server.json(path, similar(TEXT, [OTHER, TEXT]))
    assert status == 200
    wanted = [float(own(server, OTHER) @ own(server, TEXT)), 1.0]
    np.testing.assert_allclose(value, wanted, atol=1e-5)


def test_sentences_that_cannot_be_compared(server):
    answer = refused(server.json("/similarity", similar(TEXT, [])))
    assert answer == (400, "Empty", "`inputs.sentences` is an empty list; send a text")
    status, kind, message = refused(server.json("/similarity", similar(TEXT, [OTHER, LONG])))
    assert (status, kind) == (413, "Validation")
    assert "text 2 (604 tokens)" in message
    assert "text 0 is the source sentence" in message
    status, _ = server.json("/similarity", similar(TEXT, [LONG], truncate=True))
    assert status == 200
    status, kind, _ = refused(server.json("/similarity", similar(TEXT, ["a"] * 2048)))
    assert (status, kind) == (413, "Validation")


def test_a_cut_sentence_equals_what_is_left_of_it(server):
    parameters = {"truncate": True, "truncation_direction": "Left"}
    _, (left,) = server.json("/similarity", similar("last", [LONG], **parameters))
    rows = [own(server, "last"), own(server, LONG, overflow="truncate", truncate_side="left")]
    assert left == pytest.approx(float(rows[0] @ rows[1]), abs=1e-5)


# ── /tokenize ────────────────────────────────────────────────────────────────────────────────


def test_tokens_and_the_characters_they_stand_for(server):
    status, value = server.json("/tokenize", {"inputs": ["Embéddings, 🙂!", TEXT]})
    assert (status, len(value)) == (200, 2)
    assert value[0] == [
        {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
        {"id": 7861, "text": "Em", "special": False, "start": 0, "stop": 2},
        {"id": 8270, "text": "béd", "special": False, "start": 2, "stop": 5},
        {"id": 4667, "text": "ding", "special": False, "start": 5, "stop": 9},
        {"id": 2015, "text": "s", "special": False, "start": 9, "stop": 10},
        {"id": 1010, "text": ",", "special": False, "start": 10, "stop": 11},
        {"id": 100, "text": "🙂", "special": False, "start": 12, "stop": 13},
        {"id": 999, "text": "!", "special": False, "start": 13, "stop": 14},
        {"id": 102, "text": "[SEP]", "special": True, "start": None, "stop": None},
    ]
    ids = server.service.engine.tokenize("minilm", TEXT).tolist()
    assert [token["id"] for token in value[1]] == ids


def test_without_special_tokens(server):
    body = {"inputs": "[CLS] hi", "add_special_tokens": False}
    _, (tokens,) = server.json("/tokenize", body)
    assert not any(token["special"] for token in tokens)
    assert "".join(token["text"] for token in tokens) == "[CLS]hi"
    assert [token["start"] for token in tokens][-1] == 6


def test_texts_that_cannot_be_tokenized(server):
    for inputs, wanted, answered in (
        ([TEXT, ""], "nothing to tokenize in text 1; leave it out", (400, "Empty")),
        (["a", "b " * 10**5], "over the limit of 128,000 characters", (413, "Validation")),
    ):
        status, kind, message = refused(server.json("/tokenize", {"inputs": inputs}))
        assert (status, kind) == answered
        assert message.startswith(wanted)
    status, kind, _ = refused(server.json("/tokenize", {"inputs": [1, 2]}))
    assert (status, kind) == (422, "Validation")


# ── /info ────────────────────────────────────────────────────────────────────────────────────


def test_what_is_served(server):
    status, value = server.json("/info")
    info = server.service.models.find("minilm").info
    assert status == 200
    assert value["model_type"] == {"embedding": {"pooling": "mean"}}
    assert value["model_dtype"] == "float16"
    assert value["model_sha"] == info.fingerprint
    assert value["max_input_length"] == info.n_ctx
    assert value["max_client_batch_size"] == 2048
    assert value["auto_truncate"] is False
    assert value["version"] == __version__
    assert server.json("/info?model=minilm") == (200, value)
    status, kind, _ = refused(server.json("/info?model=other"))
    assert (status, kind) == (404, "Validation")

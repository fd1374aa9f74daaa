"""text-embeddings-inference's /rerank, and which model answers where several are served."""

import json

import numpy as np
import pytest

from tests.integration.server.running import serving
from tests.integration.server.scraped import Page
from tests.integration.server.test_tei import refused
from tests.tiny_cross_encoder import DOCUMENTS, LONG_DOCUMENT, QUERY, write_cross_encoder

ASKED = {"query": QUERY, "texts": list(DOCUMENTS)}


@pytest.fixture(scope="module")
def reranker_path(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("tei") / "reranker.gguf")


@pytest.fixture(scope="module")
def both(tiny_path, reranker_path):
    """A server of an embedding model and a reranker, in this order."""
    with serving(models={"tiny": tiny_path, "reranker": reranker_path}) as running:
        yield running


def own(server, **options):
    return server.service.engine.rerank("reranker", QUERY, DOCUMENTS, **options)


@pytest.mark.parametrize("raw_scores", [False, True])
def test_the_best_come_first(both, raw_scores):
    status, value = both.json("/rerank", ASKED | {"raw_scores": raw_scores})
    wanted = own(both, normalize=not raw_scores)
    assert status == 200
    assert [set(rank) for rank in value] == [{"index", "score"}] * len(DOCUMENTS)
    assert [rank["index"] for rank in value] == [result.index for result in wanted]
    np.testing.assert_allclose(
        [rank["score"] for rank in value], [result.score for result in wanted], atol=1e-5
    )


def test_texts_come_back_where_they_are_wanted(both):
    _, value = both.json("/rerank", ASKED | {"return_text": True})
    assert [rank["text"] for rank in value] == [DOCUMENTS[rank["index"]] for rank in value]


def test_what_it_took(both):
    _, headers, _ = both.request("/rerank", {"query": QUERY, "texts": DOCUMENTS * 200})
    assert 1 <= int(headers["x-inference-time"]) <= 4 * int(headers["x-total-time"])
    page = Page(both)
    assert page.value("embellama_inference_seconds_count", model="reranker") >= 1
    assert page.value("embellama_inference_seconds_sum", model="reranker") > 0.0005
    assert page.value("embellama_queue_wait_seconds_count", model="reranker") >= 1
    _, headers, _ = both.request("/rerank", ASKED)
    n_chars = len(QUERY) + sum(map(len, DOCUMENTS))
    assert headers["x-compute-characters"] == str(n_chars)
    assert headers["x-compute-tokens"] == str(sum(result.n_tokens for result in own(both)))


def test_long_texts(both):
    body = {"query": QUERY, "texts": ["hi", LONG_DOCUMENT]}
    status, kind, message = refused(both.json("/rerank", body))
    assert (status, kind) == (413, "Validation")
    assert "document 1" in message
    status, headers, data = both.request("/rerank", body | {"truncate": True})
    assert (status, headers["x-embellama-truncated"]) == (200, "1")
    assert sorted(rank["index"] for rank in json.loads(data)) == [0, 1]


def test_documents_are_not_cut_from_the_left(both):
    left = {"truncate": True, "truncation_direction": "Left"}
    status, value = both.json("/rerank", ASKED | left)
    assert status == 200
    assert [rank["index"] for rank in value] == [result.index for result in own(both)]
    body = {"query": QUERY, "texts": ["hi", LONG_DOCUMENT]} | left
    status, kind, message = refused(both.json("/rerank", body))
    assert (status, kind) == (413, "Validation")
    assert "document 1" in message
    assert "'Left' is not possible" in message


def test_nothing_to_order(both):
    answer = refused(both.json("/rerank", {"query": QUERY, "texts": []}))
    assert answer == (400, "Empty", "`texts` is an empty list; send a text")
    for body, where, answered in (
        ({"query": QUERY, "texts": ["hi", ""]}, "document 1", (400, "Empty")),
        ({"query": " ", "texts": ["hi"]}, "the query has nothing", (400, "Empty")),
        ({"query": QUERY, "texts": ["hi"] * 2049}, "2049 texts", (413, "Validation")),
    ):
        status, kind, message = refused(both.json("/rerank", body))
        assert (status, kind) == answered
        assert where in message


# ── which model ──────────────────────────────────────────────────────────────────────────────


def test_a_reranker_is_described_as_one(both):
    _, value = both.json("/info?model=reranker")
    assert value["model_type"] == {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    assert value["model_dtype"] == "float32"


@pytest.mark.parametrize("lazy", [False, True])
def test_each_request_finds_the_first_model_that_can_answer_it(tiny_path, reranker_path, lazy):
    models = {"reranker": reranker_path, "tiny": tiny_path}
    with serving({"lazy": lazy}, models=models) as server:
        status, (vector,) = server.json("/embed", {"inputs": "a b"})
        assert (status, len(vector)) == (200, 64)
        similar = {"inputs": {"source_sentence": "a", "sentences": ["a"]}}
        assert server.json("/similarity", similar)[0] == 200
        assert server.json("/embed_all", {"inputs": "a b"})[0] == 200
        assert server.json("/rerank", ASKED)[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/embed", {"inputs": "a", "model": "reranker"}, "'reranker' scores pairs of texts"),
        ("/", {"inputs": "a", "model": "reranker"}, "'reranker' scores pairs of texts"),
        ("/embed_all", {"inputs": "a", "model": "reranker"}, "'reranker' scores pairs"),
        ("/rerank", ASKED | {"model": "tiny"}, "'tiny' makes vectors of texts"),
    ],
)
def test_a_model_that_cannot_do_it(both, path, body, message):
    status, kind, found = refused(both.json(path, body))
    assert (status, kind) == (424, "Backend")
    assert message in found


def test_no_model_that_can_do_it(tiny_path):
    with serving(models={"tiny": tiny_path}) as server:
        status, kind, message = refused(server.json("/rerank", ASKED))
        assert (status, kind) == (424, "Backend")
        assert message == "no model that scores pairs of texts is served here, and this needs one"


def test_a_model_that_is_not_there(tmp_path):
    with serving({"lazy": True}, models={"gone": tmp_path / "gone.gguf"}) as server:
        for path, body in (("/embed", {"inputs": "a"}), ("/info", None)):
            status, kind, message = refused(server.json(path, body))
            assert (status, kind) == (503, "Unhealthy")
            assert "'gone' could not be loaded" in message

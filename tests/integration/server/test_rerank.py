"""Jina's and Cohere's rerank, by Cohere's client where it is installed, and by plain requests."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.integration.server.running import serving
from tests.tiny_cross_encoder import DOCUMENTS, LONG_DOCUMENT, N_CTX, QUERY, write_cross_encoder

ALL = [*DOCUMENTS, LONG_DOCUMENT]
PATHS = ("/v1/rerank", "/v2/rerank")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory, tiny_path):
    """A server with a cross-encoder of few positions, and a model that makes vectors."""
    path = write_cross_encoder(tmp_path_factory.mktemp("rerank") / "cross.gguf")
    with serving({"max_texts": 300}, models={"cross": path, "tiny": tiny_path}) as running:
        yield running


@pytest.fixture(scope="module")
def probabilities():
    """What transformers gives for the same weights and texts, in the order of ``ALL``."""
    with np.load(Path(__file__).parents[2] / "data" / "rerank_reference.npz") as arrays:
        return 1 / (1 + np.exp(-arrays["bert_logits"]))


def ask(running, path="/v1/rerank", **body):
    return running.json(path, {"query": QUERY, "documents": list(DOCUMENTS), **body})


def order_of(value):
    return [result["index"] for result in value["results"]]


# ── what comes back ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
def test_the_best_come_first_with_the_scores_of_transformers(reranker, probabilities, path):
    status, value = ask(reranker, path, model="cross")
    assert status == 200
    expected = probabilities[: len(DOCUMENTS)]
    assert order_of(value) == np.argsort(-expected, kind="stable").tolist()
    scores = {result["index"]: result["relevance_score"] for result in value["results"]}
    np.testing.assert_allclose([scores[i] for i in range(len(DOCUMENTS))], expected, atol=1e-4)
    assert all(0 <= score <= 1 for score in scores.values())


def test_it_says_how_much_it_was(reranker):
    status, headers, data = reranker.request("/v2/rerank", {"query": QUERY, "documents": ["hi"]})
    value = json.loads(data)
    n_tokens = reranker.service.engine.rerank("cross", QUERY, ["hi"])[0].n_tokens
    assert (status, value["model"], value["id"]) == (200, "cross", headers["x-request-id"])
    assert value["usage"] == {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    assert value["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": n_tokens, "output_tokens": 0},
    }
    assert "x-embellama-truncated" not in headers


def test_tokens_and_units_are_of_all_documents_also_where_few_are_wanted(reranker):
    documents = list(DOCUMENTS) * 20
    _, one = ask(reranker, documents=documents, top_n=1)
    _, every = ask(reranker, documents=documents)
    assert (len(one["results"]), len(every["results"])) == (1, 120)
    assert one["usage"] == every["usage"]
    assert one["meta"]["billed_units"] == {"search_units": 2}


def test_top_n_gives_the_best_so_many(reranker):
    _, every = ask(reranker)
    for top_n, n_expected in ((2, 2), (6, 6), (1000, 6), (None, 6)):
        status, value = ask(reranker, top_n=top_n)
        assert (status, order_of(value)) == (200, order_of(every)[:n_expected])


def test_documents_come_back_as_each_api_does_it(reranker):
    _, jina = ask(reranker, "/v1/rerank", top_n=1)
    assert jina["results"][0]["document"] == {"text": DOCUMENTS[jina["results"][0]["index"]]}
    _, cohere = ask(reranker, "/v2/rerank", top_n=1)
    assert set(cohere["results"][0]) == {"index", "relevance_score"}
    _, without = ask(reranker, "/v1/rerank", return_documents=False)
    assert not any("document" in result for result in without["results"])
    _, given = ask(reranker, "/v2/rerank", return_documents=True)
    assert all(result["document"]["text"] in DOCUMENTS for result in given["results"])


def test_objects_come_back_whole_and_their_text_counts(reranker):
    objects = [{"text": text, "title": f"no. {n}"} for n, text in enumerate(DOCUMENTS)]
    _, plain = ask(reranker)
    _, value = ask(reranker, documents=objects, query={"text": QUERY})
    assert order_of(value) == order_of(plain)
    assert all(result["document"] == objects[result["index"]] for result in value["results"])


def test_rank_fields_say_what_counts(reranker):
    _, plain = ask(reranker)
    objects = [{"text": "hi", "body": text} for text in DOCUMENTS]
    _, value = ask(reranker, documents=objects, rank_fields=["body"])
    assert [r["relevance_score"] for r in value["results"]] == pytest.approx(
        [r["relevance_score"] for r in plain["results"]], abs=1e-5
    )
    first, second = "the panda", "is a bear."
    _, joined = ask(reranker, documents=[f"{first} {second}"])
    score = joined["results"][0]["relevance_score"]
    _, value = ask(reranker, documents=[{"a": first, "b": second}], rank_fields=["a", "b"])
    assert value["results"][0]["relevance_score"] == pytest.approx(score, abs=1e-6)


# ── what is too long ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", PATHS)
def test_long_documents_are_cut_and_it_is_said(reranker, probabilities, path):
    status, headers, data = reranker.request(path, {"query": QUERY, "documents": ALL})
    value = json.loads(data)
    assert (status, headers["x-embellama-truncated"]) == (200, "1")
    assert value["meta"]["warnings"] == ["1 documents were over the model's limit and cut"]
    scores = {result["index"]: result["relevance_score"] for result in value["results"]}
    assert scores[len(DOCUMENTS)] == pytest.approx(probabilities[len(DOCUMENTS)], abs=1e-4)
    _, short = ask(reranker)
    assert value["usage"]["total_tokens"] == short["usage"]["total_tokens"] + N_CTX


def test_long_documents_are_refused_where_the_client_says_so(reranker):
    for more in ({"truncation": False}, {"embellama": {"overflow": "error"}}):
        status, value = ask(reranker, documents=ALL, **more)
        assert status == 400
        assert f"over the limit of {N_CTX} tokens" in value["message"]
        assert "document 6" in value["message"]


def test_what_is_not_applied_is_said(reranker):
    status, value = ask(
        reranker,
        max_tokens_per_doc=512,
        max_chunks_per_doc=10,
        relevant_spans={"mode": "enabled", "threshold": 0.5},
    )
    names = [warning.split()[0] for warning in value["meta"]["warnings"]]
    assert (status, names) == (200, ["max_tokens_per_doc", "max_chunks_per_doc", "relevant_spans"])
    _, value = ask(reranker, relevant_spans={"mode": "disabled"})
    assert "warnings" not in value["meta"]


# ── what is wrong ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"documents": []}, "documents: the list is empty"),
        ({"documents": "a panda"}, "documents"),
        ({"documents": [{"title": "a panda"}]}, "documents[0] has no field 'text'"),
        ({"documents": ["hi", {"text": 5}]}, "documents[1]"),
        ({"documents": ["hi", " "]}, "document 1"),
        ({"query": ""}, "the query has nothing to ask"),
        ({"query": {"title": "x"}}, "query has no field 'text'"),
        ({"query": "panda " * 60}, "the query has 60 tokens"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "3"}, "top_n"),
        ({"rank_fields": []}, "rank_fields"),
        ({"model": "tiny"}, "needs one that scores pairs of texts"),
        ({"embellama": {"prompt": "x"}}, "embellama.prompt"),
        ({"documents": ["hi"] * 301}, "301 texts"),
    ],
)
def test_what_cannot_be_meant_is_a_400_in_both_forms(reranker, body, says):
    status, value = ask(reranker, **body)
    assert status == 400
    assert says in value["message"]
    assert value["detail"] == value["message"]


def test_an_unknown_model_is_not_found(reranker):
    status, value = ask(reranker, "/v2/rerank", model="rerank-v3.5")
    assert (status, "there are: cross, tiny" in value["message"]) == (404, True)


def test_it_makes_no_vectors_and_says_so(reranker):
    status, value = reranker.json("/v1/embeddings", {"model": "cross", "input": "hi"})
    assert (status, "cross" in value["error"]["message"]) == (400, True)
    _, shown = reranker.json("/api/show", {"model": "cross"})
    assert shown["capabilities"] == []


# ── what is embellama's own ──────────────────────────────────────────────────────────────────────


def test_logits_and_details_on_demand(reranker):
    wanted = {"normalize": False, "details": True, "priority": "bulk", "timeout_s": 30}
    _, value = ask(reranker, documents=ALL, embellama=wanted)
    own = reranker.service.engine.rerank("cross", QUERY, ALL, normalize=False, overflow="truncate")
    assert [r["relevance_score"] for r in value["results"]] == pytest.approx(
        [found.score for found in own], abs=1e-5
    )
    details = value["embellama"]["documents"]
    assert [found["index"] for found in details] == list(range(len(ALL)))
    assert details[-1]["n_tokens"] - details[-1]["n_dropped"] == N_CTX


# ── Cohere's client ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cohere():
    return pytest.importorskip("cohere", reason="needs Cohere's client: pip install cohere")


def test_coheres_client_v2(reranker, probabilities, cohere):
    client = cohere.ClientV2(api_key="not-checked", base_url=reranker.url)
    with closing(client._client_wrapper.httpx_client.httpx_client):
        got = client.rerank(model="cross", query=QUERY, documents=list(DOCUMENTS), top_n=3)
        best = np.argsort(-probabilities[: len(DOCUMENTS)], kind="stable")[:3].tolist()
        assert [result.index for result in got.results] == best
        assert got.meta.billed_units.search_units == 1
        with pytest.raises(cohere.BadRequestError, match="needs one that scores pairs of texts"):
            client.rerank(model="tiny", query=QUERY, documents=["hi"])
        with pytest.raises(cohere.NotFoundError):
            client.rerank(model="rerank-v3.5", query=QUERY, documents=["hi"])


def test_coheres_client_v1(reranker, cohere):
    client = cohere.Client(api_key="not-checked", base_url=reranker.url)
    with closing(client._client_wrapper.httpx_client.httpx_client):
        objects = [{"text": text} for text in DOCUMENTS]
        got = client.rerank(query=QUERY, documents=objects, return_documents=True)
    assert got.results[0].document.text == DOCUMENTS[got.results[0].index]
    assert got.meta.api_version.version == "1"

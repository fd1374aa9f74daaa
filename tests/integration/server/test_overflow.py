"""Texts that are too long, where neither the request nor its API says what becomes of them."""

import pytest

from tests.integration.server.running import serving
from tests.tiny_cross_encoder import LONG_DOCUMENT, write_cross_encoder

LONG = "long " * 2000


@pytest.fixture(scope="module", params=["error", "truncate", "window"])
def started(request, tiny_path, tmp_path_factory):
    reranker = write_cross_encoder(tmp_path_factory.mktemp("overflow") / "reranker.gguf")
    models, config = {"tiny": tiny_path, "reranker": reranker}, {"overflow": request.param}
    with serving(config, models=models) as running:
        yield request.param, running


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        ("/v1/embeddings", {"input": LONG}, 400),
        ("/embed", {"inputs": LONG}, 413),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": [LONG]}}, 413),
        ("/api/embeddings", {"model": "tiny", "prompt": LONG}, 400),
    ],
)
def test_it_is_as_the_server_was_started(started, path, body, refused):
    overflow, running = started
    status, headers, _ = running.request(path, body)
    assert status == (refused if overflow == "error" else 200)
    assert headers["x-embellama-truncated"] == ("1" if overflow == "truncate" else None)


def test_vectors_of_tokens_have_no_windows(started):
    overflow, running = started
    status = running.request("/embed_all", {"inputs": LONG})[0]
    assert status == (200 if overflow == "truncate" else 413)


def test_pairs_have_none_either_and_are_cut_at_their_end_alone(started):
    overflow, running = started
    body = {"query": "a", "texts": [LONG_DOCUMENT], "truncation_direction": "Right"}
    assert running.request("/rerank", body)[0] == (200 if overflow == "truncate" else 413)
    assert running.request("/rerank", body | {"truncation_direction": "Left"})[0] == 413


def test_windows_that_compute_a_text_many_times_over_are_refused(started):
    overflow, running = started
    many = {"input": LONG, "embellama": {"max_tokens": 16, "window_overlap": 13}}
    status, value = running.json("/v1/embeddings", many)
    if overflow == "window":
        assert (status, value["error"]["param"]) == (400, "embellama.window_overlap")
    many["embellama"]["overflow"] = "window"
    assert running.json("/v1/embeddings", many)[0] == 400


def test_requests_that_say_it_get_what_they_say(started):
    _, running = started
    for path, said in (
        ("/v1/embeddings", {"input": LONG, "embellama": {}}),
        ("/embed", {"inputs": LONG, "truncate": None}),
        ("/api/embed", {"model": "tiny", "input": LONG, "truncate": None}),
        ("/api/embeddings", {"model": "tiny", "prompt": LONG, "truncate": None}),
    ):
        for is_cut in (True, False):
            body = dict(said)
            if "truncate" in body:
                body["truncate"] = is_cut
            else:
                body["embellama"] = {"overflow": "truncate" if is_cut else "error"}
            status = running.request(path, body)[0]
            assert (status == 200) == is_cut, path


def test_the_description_says_it(started):
    overflow, running = started
    assert running.json("/info")[1]["auto_truncate"] is (overflow == "truncate")

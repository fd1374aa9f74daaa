"""The files of the page at / and its live figures, as a client without a browser sees them."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from embellama.server.routes.playground import ASSETS, PAGE, POLICY
from tests.integration.server.running import serving

KEY = "sk-0123456789"
SOURCES = {
    name: (files("embellama.server") / "playground" / name).read_bytes() for name in (PAGE, *ASSETS)
}
PATHS = {PAGE: "/"} | {name: f"/playground/{name}" for name in ASSETS}


@pytest.mark.parametrize("name", PATHS)
def test_a_file_is_sent_as_what_it_is_under_the_policy(server, name):
    status, headers, body = server.request(PATHS[name])
    assert (status, body) == (200, SOURCES[name])
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg"}
    assert headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
    assert headers["content-security-policy"] == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"


def test_the_policy_allows_nothing_from_elsewhere_and_nothing_inline():
    rules = dict(rule.strip().split(" ", 1) for rule in POLICY.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


def test_every_file_is_listed_and_every_one_that_is_named_is_there():
    folder = files("embellama.server") / "playground"
    there = {entry.name for entry in folder.iterdir() if entry.is_file()}
    assert there == {PAGE, *ASSETS}
    linked = re.findall(rb'(?:href|src)="playground/([\w.]+)"', SOURCES[PAGE])
    imported = [
        found
        for name in ASSETS
        if name.endswith(".js")
        for found in re.findall(rb'from "\./([\w.]+)"', SOURCES[name])
    ]
    assert {name.decode() for name in [*linked, *imported]} == set(ASSETS)


def test_a_browser_that_has_a_file_is_not_sent_it_again(server):
    _, headers, body = server.request("/")
    tag = headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        status, again, nothing = server.request("/", headers={"If-None-Match": known})
        assert (status, nothing) == (304, b"")
        assert again["etag"] == tag
        assert again["content-length"] is None
    assert server.request("/", headers={"If-None-Match": '"other"'})[::2] == (200, body)


def test_head_tells_the_length_alone(server):
    status, headers, body = server.request("/", method="HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(SOURCES[PAGE]))


@pytest.mark.parametrize(
    "path",
    [
        "/playground",
        "/playground/",
        "/playground/index.html",
        "/playground/../settings.py",
        "/playground/%2e%2e/settings.py",
        "/playground/main.js/..",
        "/playground/%2fetc%2fpasswd",
        "/playground/main.js%00",
    ],
)
def test_what_is_not_listed_is_not_there(server, path):
    status, value = server.json(path)
    assert (status, value["error"]["code"]) == (404, "not_found")


def test_methods_that_the_page_has_not_are_refused_in_words(server):
    status, headers, body = server.request("/", b"", method="PUT")
    assert status == 405
    assert b"PUT is not possible here" in body
    assert {"GET", "HEAD"} <= set(headers["allow"].split(", "))
    status, value = server.json("/playground/stats", {"a": 1})
    assert (status, value["error"]["code"]) == (405, "method_not_allowed")


def test_figures_count_what_was_embedded(server):
    _, before = server.json("/playground/stats")
    texts = ["one", "two", "three"]
    _, value = server.json("/v1/embeddings", {"input": texts})
    _, headers, _ = server.request("/playground/stats")
    assert headers["cache-control"] == "no-store"
    _, after = server.json("/playground/stats")
    assert after["n_texts"] - before["n_texts"] == 3
    assert after["n_tokens"] - before["n_tokens"] == value["usage"]["total_tokens"]
    assert after["at_s"] > before["at_s"]
    assert (after["n_requests"], after["n_waiting_texts"]) == (0, 0)
    assert after["models"] == {"minilm": "loaded"}


def test_figures_need_the_key_and_the_page_does_not(tiny_path):
    with serving({"api_keys": (KEY,)}, models={"tiny": tiny_path}) as running:
        assert running.request("/")[0] == 200
        assert running.request("/playground/main.js")[0] == 200
        assert running.request("/playground/stats")[0] == 401
        headers = {"Authorization": f"Bearer {KEY}"}
        assert running.request("/playground/stats", headers=headers)[0] == 200


def test_a_server_without_its_playground_says_so(tiny_path):
    with serving({"playground": False}, models={"tiny": tiny_path}) as running:
        for path in ("/", "/playground/main.js", "/playground/stats"):
            status, value = running.json(path)
            assert (status, value["error"]["code"]) == (404, "not_found")
            assert "without its playground" in value["error"]["message"]

"""The page at / and its server: snippets that run, keys, refusals, roles, live figures."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from embellama import EngineConfig, ModelConfig
from tests.integration.browser import CONTROL, browsing
from tests.integration.server.playground_page import (
    CELLS,
    HOSTILE,
    READY,
    TEXTS,
    embed,
    opened,
    posted,
    texts_of,
    write,
)
from tests.integration.server.running import serving

KEY = "sk-0123456789abcdef"
CODE = "document.querySelector('#snippet-code').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


@pytest.mark.parametrize("text", [TEXTS[3], HOSTILE[3], 'it\'s "quoted"'])
def test_the_curl_snippet_runs_as_it_stands(page, server, text, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("needs curl on PATH")
    write(page, [text])
    code = page.run(CODE)
    assert f"{server.url}/v1/embeddings" in code
    flags = "curl --silent --show-error --write-out '\\n%{http_code}' "
    done = subprocess.run(
        ["sh", "-c", code.replace("curl ", flags, 1)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,  # curl's own code is in what it writes
        cwd=tmp_path,
    )
    assert list(tmp_path.iterdir()) == []
    answer, _, status = done.stdout.rpartition("\n")
    assert (status, done.stderr) == ("200", "")
    given = np.array(json.loads(answer)["data"][0]["embedding"])
    np.testing.assert_allclose(given, server.service.engine.embed("minilm", text), atol=2e-4)


def test_the_python_snippet_runs_as_it_stands(page, server):
    write(page, [HOSTILE[3]])
    page.run("document.querySelector('#tab-python').click()")
    done = subprocess.run(
        [sys.executable, "-c", page.run(CODE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    wanted = server.service.engine.embed("minilm", HOSTILE[3])[:8]
    np.testing.assert_allclose(json.loads(done.stdout), wanted, atol=2e-4)


def test_the_fetch_snippet_runs_as_it_stands(page, server):
    if shutil.which("node") is None:
        pytest.skip("needs node on PATH")
    write(page, [HOSTILE[3]])
    page.run("document.querySelector('#tab-fetch').click()")
    done = subprocess.run(
        ["node", "--input-type=module", "-e", page.run(CODE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = [float(part) for part in done.stdout.strip("[] \n").replace(",", " ").split()]
    wanted = server.service.engine.embed("minilm", HOSTILE[3])[:8]
    np.testing.assert_allclose(shown, wanted, atol=2e-4)


def test_snippets_are_chosen_by_keys_and_copied(page, server):
    page.run("document.querySelector('#tab-curl').focus()")
    seen = {page.run(CODE)}
    for _ in range(3):
        page.press("ArrowRight")
        seen.add(page.run(CODE))
        selected = page.run("document.querySelector('[aria-selected=true]').id")
        assert page.run("document.activeElement.id") == selected
    assert len(seen) == 4
    assert all(server.url in code and "minilm" in code for code in seen)
    page.run("document.querySelector('#copy').focus()")
    page.run("navigator.clipboard.writeText = text => { window.taken = text; }")
    page.press("Enter")
    page.until("document.querySelector('#copied').textContent")
    assert page.run("window.taken") == page.run(CODE)


def test_live_figures_move_and_rest_while_nobody_looks(page, server):
    page.until("document.querySelector('#live-texts').textContent !== '–'")
    embed(page, TEXTS)
    page.until("Number(document.querySelector('#live-texts').textContent) > 0")
    assert page.run("Number(document.querySelector('#live-requests').textContent)") == 0
    page.run(
        "Object.defineProperty(document, 'visibilityState', "
        "{get: () => 'hidden', configurable: true}); "
        "document.dispatchEvent(new Event('visibilitychange'))"
    )

    def n_asked():
        page.run("1")
        return sum(url.endswith("/playground/stats") for url in page.requests())

    before = n_asked()
    time.sleep(3.5)
    assert n_asked() == before
    page.run(
        "delete document.visibilityState; document.dispatchEvent(new Event('visibilitychange'))"
    )
    end = time.monotonic() + 10
    while n_asked() == before:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_with_keys_is_asked_with_one(browser, minilm_path):
    with serving({"api_keys": (KEY,)}, models={"minilm": minilm_path}) as running:
        browser.open(running.url + "/")
        browser.until("document.querySelector('#key').offsetHeight > 0")
        browser.until("document.activeElement.id === 'key-value'")
        browser.call("Input.insertText", text="sk-wrong-one")
        browser.press("Enter")
        browser.until("document.querySelector('#key-error').textContent.includes('not one of')")
        browser.run("document.querySelector('#key-value').focus()")
        browser.call("Input.insertText", text=KEY)
        browser.press("Enter")
        browser.until(READY)
        assert browser.run("document.querySelector('#key').hidden")
        embed(browser, TEXTS)
        assert len(browser.run(CELLS)) == 25
        assert browser.run("sessionStorage.length") == 1
        assert browser.run("localStorage.length + document.cookie.length") == 0
        for tab in ("curl", "python", "openai", "fetch"):
            browser.run(f"document.querySelector('#tab-{tab}').click()")
            assert "EMBELLAMA_API_KEY" in browser.run(CODE)
        assert KEY not in browser.run("document.documentElement.outerHTML")
        refused = [each["entry"]["text"] for each in browser.complaints()]
        assert all("401" in text for text in refused), refused


def test_refusals_are_shown_in_words_where_they_belong(browser, tiny_path):
    config = {"max_texts": 3, "lazy": True}
    with serving(config, models={"tiny": tiny_path}) as running:
        browser.open(running.url + "/")
        browser.until(READY)
        assert "loaded when first used" in texts_of(browser, "#model-facts")[0]
        write(browser, ["a", "b", "c", "a b"])
        browser.press("Enter", modifiers=CONTROL)
        browser.until("!document.querySelector('#run-error').hidden")
        assert "4 texts, and the limit is 3" in texts_of(browser, "#run-error")[0]
        embed(browser, ["a", "b"])
        assert browser.run("document.querySelector('#run-error').hidden")
        browser.until("document.querySelector('#model').textContent.includes('ready')")
        url = running.url
    write(browser, ["c"])
    browser.press("Enter", modifiers=CONTROL)
    browser.until("!document.querySelector('#run-error').hidden")
    assert "does not answer" in texts_of(browser, "#run-error")[0]
    browser.until("document.querySelector('#live-texts').textContent === '–'")
    assert {each.startswith(url) for each in browser.requests()} == {True}


def test_roles_are_sent_where_the_model_has_prompts(browser, minilm_path):
    prompts = {"query": "find: ", "document": "text: "}
    model = ModelConfig(model_path=minilm_path, model_name="asking", prompts=prompts)
    with serving(engine_config=EngineConfig(models=(model,))) as running:
        browser.open(running.url + "/")
        browser.until(READY)
        assert "prompts: query, document" in texts_of(browser, "#model-facts")[0]
        embed(browser, TEXTS)
        browser.run("document.querySelector('#query').focus()")
        browser.call("Input.insertText", text="winter")
        browser.press("Enter")
        browser.until("document.querySelectorAll('#hits li').length === 5")
        kinds = [(body["embellama"]["kind"], len(body["input"])) for body in posted(browser)]
        assert kinds == [("document", 5), ("query", 1)]

"""The page at / in a real browser: how tests open it, type into it and read it."""

from __future__ import annotations

import json
from contextlib import contextmanager

from tests.integration.browser import CONTROL

NARROW = 360
TEXTS = [
    "A warm woollen scarf for winter days",
    "Thick gloves against the frost",
    "Recipe: a simple loaf with flour and salt",
    "Der Teig ruht über Nacht 🍞",
    "The central bank raised interest rates",
]
LONG = "the tenant keeps the rooms in good order " * 200
HOSTILE = [
    "<img src=x onerror=\"window.ran = 'img'\">",
    "<script>window.ran = 'script'</script>",
    "</textarea><svg onload=\"window.ran = 'svg'\">",
    "'; touch ran; echo '\" $(id) `id` \\ ${x} %s \u202e",
]
READY = "document.querySelector('#model').options.length > 0"
DONE = "!document.querySelector('#heat-full').hidden && document.querySelector('#stale').hidden"
CELLS = "[...document.querySelectorAll('.cell')].map(c => Number(c.dataset.value))"


@contextmanager
def opened(browser, server):
    """The page at rest. When a test is over, nothing was wrong with it, nor asked elsewhere."""
    browser.open(server.url + "/")
    browser.until(READY)
    yield browser
    browser.run("1")  # what has happened so far is known with its answer
    assert browser.complaints() == []
    assert {url.startswith((server.url + "/", "data:")) for url in browser.requests()} == {True}
    assert browser.run("window.ran === undefined")


def write(page, texts):
    page.run(
        f"(f => {{ f.value = {json.dumps(chr(10).join(texts))}; "
        "f.dispatchEvent(new Event('input', {bubbles: true})); f.focus(); })"
        "(document.querySelector('#lines'))"
    )


def embed(page, texts):
    write(page, texts)
    page.press("Enter", modifiers=CONTROL)
    page.until(DONE)


def texts_of(page, selector):
    return page.run(f"[...document.querySelectorAll('{selector}')].map(e => e.textContent)")


def posted(page):
    """Return the bodies of the embedding requests that the page made."""
    page.run("1")
    sent = [e["params"]["request"] for e in page.events if e.get("method", "").endswith("BeSent")]
    return [json.loads(each["postData"]) for each in sent if each["method"] == "POST"]


def minus(value):
    return f"{value:.3f}".replace("-", "−")

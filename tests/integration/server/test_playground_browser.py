"""The page at / in a real browser, on the real model: what it computes is what the engine does."""

from __future__ import annotations

import json
import time
from itertools import combinations

import numpy as np
import pytest

from tests.integration.browser import CONTROL, browsing
from tests.integration.server.playground_page import (
    CELLS,
    HOSTILE,
    LONG,
    NARROW,
    TEXTS,
    embed,
    minus,
    opened,
    posted,
    texts_of,
    write,
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


def test_the_heat_map_has_the_engines_cosines(page, server):
    page.run("document.querySelector('#lines').focus()")
    embed(page, [TEXTS[0], "", *TEXTS[1:], "   "])
    vectors = server.service.engine.embed_batch("minilm", TEXTS).astype(np.float64)
    shown = np.array(page.run(CELLS)).reshape(len(TEXTS), len(TEXTS))
    np.testing.assert_allclose(shown, vectors @ vectors.T, atol=2e-4)
    assert texts_of(page, "#heat .head .text") == TEXTS
    assert texts_of(page, "#heat .head .number") == ["1", "2", "3", "4", "5"]
    ticks = [float(t.replace("−", "-")) for t in texts_of(page, "#ticks span")]
    apart = shown[~np.eye(len(TEXTS), dtype=bool)]
    np.testing.assert_allclose([ticks[0], ticks[2]], [apart.min(), apart.max()], atol=0.006)
    timing = page.run("document.querySelector('#timing').textContent")
    assert timing.startswith("5 texts, ")
    assert timing.endswith(" texts/s")
    (body,) = posted(page)
    assert body["embellama"] == {"overflow": "truncate", "details": True}


def test_cells_are_read_by_pointer_and_by_keys_and_as_a_table(page):
    embed(page, TEXTS)
    values = np.array(page.run(CELLS)).reshape(5, 5)
    readout = "document.querySelector('#readout').textContent"
    assert "most alike" in page.run(readout)
    where = page.run(
        "(c => { c.scrollIntoView({block: 'center'}); const b = c.getBoundingClientRect(); "
        "return [b.left + b.width / 2, b.top + b.height / 2]; })"
        '(document.querySelector(\'.cell[data-row="0"][data-column="4"]\'))'
    )
    page.point_at(*where)
    assert all(part in page.run(readout) for part in (minus(values[0, 4]), TEXTS[0], TEXTS[4]))
    page.run("document.querySelector('.cell').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight"):
        page.press(key)
    focused = page.run("({...document.activeElement.dataset})")
    assert (focused["row"], focused["column"]) == ("1", "4")
    assert minus(values[1, 4]) in page.run("document.activeElement.ariaLabel")
    assert all(part in page.run(readout) for part in (minus(values[1, 4]), TEXTS[1], TEXTS[4]))
    assert page.run("document.querySelectorAll('.cell[tabindex=\"0\"]').length") == 1
    assert page.run("document.querySelector('#pairs-table').childElementCount") == 0
    page.run("document.querySelector('#pairs summary').click()")
    page.until("document.querySelector('#pairs-table td') !== null")
    assert texts_of(page, "#pairs-table td") == [minus(value) for value in values.ravel()]


def test_search_ranks_as_the_engine_does(page, server):
    write(page, TEXTS)
    page.run("document.querySelector('#lines').focus()")
    page.press("k", modifiers=CONTROL)
    assert page.run("document.activeElement.id") == "query"
    page.call("Input.insertText", text="something to wear in the cold")
    # nothing was embedded so far: the search sees to that
    page.until(f"document.querySelectorAll('#hits li').length === {len(TEXTS)}")
    engine = server.service.engine
    scores = engine.embed_batch("minilm", TEXTS) @ engine.embed(
        "minilm", posted(page)[-1]["input"][0]
    )
    order = np.argsort(-scores)
    assert texts_of(page, "#hits .text") == [TEXTS[i] for i in order]
    assert texts_of(page, "#hits .score") == [minus(scores[i]) for i in order]
    widths = page.run("[...document.querySelectorAll('#hits .bar span')].map(s => s.style.width)")
    np.testing.assert_allclose(
        [float(width[:-1]) for width in widths], 100 * scores[order].clip(0), atol=0.05
    )


def test_tokens_are_counted_and_a_cut_is_marked(page, server):
    embed(page, [*TEXTS, LONG])
    engine = server.service.engine
    counts = [engine.count_tokens("minilm", text) for text in [*TEXTS, LONG]]
    limit = engine.get_model_info("minilm").n_ctx
    assert counts[-1] > limit
    shown = texts_of(page, "#token-lines .count")
    assert shown[:-1] == [f"{count} tokens" for count in counts[:-1]]
    written = f"{counts[-1]:,}".replace(",", "\u202f")
    assert shown[-1] == f"cut: the first {limit} of {written} tokens count"
    assert page.run("document.querySelectorAll('.line.cut').length") == 1
    assert page.run("getComputedStyle(document.querySelector('.cut .count'), '::before').content")
    assert texts_of(page, "#token-sum") == [f"{sum(counts[:-1]) + limit} tokens, 1 cut"]


def test_the_map_shows_the_two_main_components_with_labels_apart(page, server):
    texts = [*TEXTS, *TEXTS[:2], "A loaf with flour", "Interest rates rose", "Scarf", "Gloves"]
    embed(page, texts)
    vectors = server.service.engine.embed_batch("minilm", texts).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    wanted = u[:, :2] * s[:2]
    spots = np.array(
        page.run("[...document.querySelectorAll('.point')].map(p => [+p.dataset.x, +p.dataset.y])")
    )
    spots = (spots - spots.mean(axis=0)) * [1, -1]
    scale = np.linalg.norm(spots) / np.linalg.norm(wanted)
    signs = np.sign((spots * wanted).sum(axis=0))
    np.testing.assert_allclose(spots / scale, wanted * signs, atol=2e-3)
    share = s[:2] ** 2 / (s**2).sum()
    first, second = np.round(100 * share).astype(int)
    assert f"shows {first} % + {second} %" in texts_of(page, "#map-note")[0]
    assert_labels_apart(page)
    page.resize(NARROW)
    time.sleep(0.3)  # it is drawn again for the new width
    assert page.run("document.querySelector('#map').viewBox.baseVal.width") < NARROW
    assert_labels_apart(page)


def assert_labels_apart(page):
    boxes = page.run(
        "[...document.querySelectorAll('.map text, .map .dot')].map(t => { "
        "const b = t.getBoundingClientRect(); "
        "return [t.textContent, b.left, b.top, b.right, b.bottom]; })"
    )
    labels = [box for box in boxes if box[0]]
    assert len(labels) >= 8
    frame = page.run(
        "(b => [b.left, b.top, b.right, b.bottom])"
        "(document.querySelector('#map').getBoundingClientRect())"
    )
    for one, other in combinations(boxes, 2):
        if one in labels or other in labels:  # dots of equal texts lie on each other
            width = min(one[3], other[3]) - max(one[1], other[1])
            height = min(one[4], other[4]) - max(one[2], other[2])
            assert min(width, height) < 1.5, (one, other)
    for _, left, top, right, bottom in labels:
        assert frame[0] <= left <= right <= frame[2]
        assert frame[1] <= top <= bottom <= frame[3]


def test_many_texts_are_drawn_in_part_and_say_so(page):
    texts = [f"{colour} house {i}" for i, colour in enumerate(("red", "green") * 35)]
    embed(page, texts)
    assert page.run("document.querySelectorAll('.cell').length") == 64 * 64
    assert "The first 64 of 70 texts are drawn" in texts_of(page, "#heat-help")[0]
    assert len(texts_of(page, "#token-lines .text")) == 70
    assert page.run("document.querySelectorAll('.point').length") == 70
    page.until("document.querySelector('#heat.minute') !== null")


def test_points_are_read_by_keys(page):
    embed(page, TEXTS)
    page.run("document.querySelector('.point').focus()")
    page.press("ArrowRight")
    assert TEXTS[1] in texts_of(page, "#map-readout")[0]
    page.press("End")
    assert page.run("document.activeElement.getAttribute('aria-label')") == f"5: {TEXTS[4]}"
    assert page.run("document.querySelectorAll('.head.lit .text')[0].textContent") == TEXTS[4]


def test_hostile_texts_stay_texts(page):
    embed(page, HOSTILE)
    page.run("document.querySelector('#pairs summary').click()")
    page.run(f"document.querySelector('#query').value = {json.dumps(HOSTILE[0])}")
    page.run("document.querySelector('#search-form').requestSubmit()")
    page.until("document.querySelectorAll('#hits li').length === 4")
    for place in ("#token-lines .text", "#heat .head .text"):
        assert texts_of(page, place) == HOSTILE
    assert sorted(texts_of(page, "#hits .text")) == sorted(HOSTILE)
    assert page.run("document.images.length") == 1
    assert page.run("document.scripts.length") == 1
    assert page.run("document.querySelectorAll('[onerror], [onload]').length") == 0


def test_what_is_shown_says_when_it_is_old(page):
    embed(page, TEXTS)
    write(page, TEXTS[:2])
    assert page.run("document.querySelector('#stale').offsetHeight") > 0
    assert texts_of(page, "#line-count") == ["2 texts"]
    page.press("Enter", modifiers=CONTROL)
    page.until("document.querySelectorAll('.cell').length === 4")
    assert page.run("document.querySelector('#stale').hidden")


def test_one_text_and_none_are_answered_in_words(page):
    embed(page, TEXTS[:1])
    assert "add another line" in texts_of(page, "#readout")[0]
    write(page, ["", "  "])
    page.press("Enter", modifiers=CONTROL)
    assert texts_of(page, "#run-error") == ["Type a text first."]

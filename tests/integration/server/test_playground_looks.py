"""The page at /: legible in both schemes, reached by keys, at home on a phone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.integration.browser import CONTROL, browsing
from tests.integration.server.playground_page import (
    HOSTILE,
    LONG,
    NARROW,
    TEXTS,
    embed,
    opened,
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


def test_colours_go_from_least_to_most_or_from_0_to_1(page):
    embed(page, TEXTS)
    fills = "[...document.querySelectorAll('.cell')].map(c => c.style.backgroundColor)"
    fitted = page.run(fills)
    page.run("document.querySelector('input[value=whole]').click()")
    assert texts_of(page, "#ticks span") == ["0.00", "0.50", "1.00"]
    assert page.run(fills) != fitted
    page.run("document.querySelector('input[value=fitted]').click()")
    assert page.run(fills) == fitted


@pytest.mark.parametrize("dark", [False, True])
def test_the_scale_is_even_for_the_eye_and_writing_in_it_is_legible(page, dark):
    page.prefer(dark=dark)
    shades = page.run(
        "import('/playground/colour.js').then(m => "
        "Array.from({length: 17}, (_, i) => m.shade(i / 16)))"
    )
    colours = [[int(part) / 255 for part in s["fill"][4:-1].split()] for s in shades]
    for rgb, ink in zip(colours, (s["ink"] for s in shades), strict=True):
        assert contrast(rgb, [0, 0, 0] if ink == "#000" else [1, 1, 1]) >= 4.5
    steps = np.linalg.norm(np.diff([oklab(rgb) for rgb in colours], axis=0), axis=1)
    assert steps.max() / steps.min() < 1.4
    lightness = [oklab(rgb)[0] for rgb in colours]
    assert lightness == sorted(lightness, reverse=not dark)


def linear(rgb):
    rgb = np.asarray(rgb)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    """Source: WCAG 2.2, contrast ratio."""
    low, high = sorted(linear(rgb) @ [0.2126, 0.7152, 0.0722] for rgb in (one, other))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    """Source: https://bottosson.github.io/posts/oklab/."""
    lms = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ linear(rgb)
    )
    return (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ lms
    )


def test_everything_is_reached_by_tab_and_shows_that_it_is(page):
    embed(page, TEXTS)
    page.run("document.activeElement.blur(); document.querySelector('.skip').focus()")
    focused = (
        "(e => [e.id || e.getAttribute('class'), getComputedStyle(e).outlineStyle, e.offsetHeight])"
    )
    seen = []
    for _ in range(30):
        page.press("Tab")
        name, outline, height = page.run(f"{focused}(document.activeElement)")
        if page.run("document.activeElement === document.body"):
            break
        seen.append(name)
        assert outline != "none" or name.startswith("point"), name  # a point's ring is drawn
        assert height is None or height > 0, name
    order = ["model", "lines", "run", "example", "cell own", "query", "tab-curl", "snippet", "copy"]
    assert [name for name in seen if name in order] == order


def test_phones_need_no_scrolling_sideways(page):
    def overflow():
        return page.run(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    for width in (NARROW, 320, 768, 1024):
        page.resize(width)
        assert overflow() <= 0, width
    embed(page, [*TEXTS, "x" * 400, LONG, *HOSTILE])
    page.run("document.querySelector('#query').value = 'y'.repeat(300)")
    page.run("document.querySelector('#search-form').requestSubmit()")
    page.until("document.querySelectorAll('#hits li').length > 0")
    page.run("document.querySelector('#pairs summary').click()")
    for width in (320, NARROW, 768, 1024, 1400):
        page.resize(width)
        assert overflow() <= 0, width
        wide = page.run(
            "[...document.querySelectorAll('main *')].filter(e => !e.closest('#pairs-table, svg') "
            "&& e.getBoundingClientRect().right > innerWidth + 1).map(e => e.className || e.id)"
        )
        assert wide == []


CONTRASTS = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parts(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour.slice(0, 3);
    }
    return parts(getComputedStyle(document.body).backgroundColor);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest('svg, option, noscript, .skip')) continue;
    const ink = parts(getComputedStyle(element).color);
    found.push([element.textContent.slice(0, 40), ink, behind(element)]);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_is_legible_in_both_schemes(page, dark):
    page.prefer(dark=dark, still=True)
    body = page.run("getComputedStyle(document.body).backgroundColor")
    lightness = oklab([int(part) / 255 for part in body[4:-1].split(",")])[0]
    assert (lightness < 0.3) if dark else (lightness > 0.9)
    embed(page, [*TEXTS, LONG])
    assert faint_texts(page) == []
    write(page, [""])
    page.press("Enter", modifiers=CONTROL)
    assert page.run("document.querySelector('#run-error').offsetHeight") > 0
    assert page.run("document.querySelector('#stale').offsetHeight") > 0
    assert faint_texts(page) == []


def faint_texts(page):
    found = page.run(CONTRASTS)
    assert len(found) > 50
    return [
        (text, round(ratio, 2))
        for text, ink, ground in found
        if (ratio := contrast(np.array(ink[:3]) / 255, np.array(ground) / 255)) < 4.5
    ]


def test_a_change_of_scheme_changes_the_colours_of_cells(page):
    embed(page, TEXTS)
    colour = "document.querySelector('.cell[data-column=\"1\"]').style.backgroundColor"
    before = page.run(colour)
    page.prefer(dark=True)
    page.until(f"{colour} !== {json.dumps(before)}")


def test_nothing_moves_for_those_who_want_it_so(page):
    moves = "getComputedStyle(document.querySelector('#run')).transitionDuration"
    assert page.run(moves) != "0s"
    page.prefer(still=True)
    assert page.run(moves) == "0s"

"""The report in a real browser: nothing clipped, nothing on top of another, nothing refused."""

from __future__ import annotations

import json
from itertools import combinations

import pytest

from embellama.bench.report.page import render_page
from tests.integration.browser import DESK, PHONE, browsing
from tests.unit.bench.report.samples import HOSTILE, alike, hostile, made_up, unjudged


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages: a full one, as most runs give, all strings an attack, all types measured alike."""
    folder = tmp_path_factory.mktemp("pages")
    full = made_up()
    kinds = {"full": full, "plain": unjudged(full), "hostile": hostile(full), "same": alike(full)}
    paths = {name: folder / f"{name}.html" for name in kinds}
    for name, findings in kinds.items():
        paths[name].write_text(render_page(findings), encoding="utf-8")
    return paths


VISIBLE_SVGS = "[...document.querySelectorAll('svg')].filter(s => s.getClientRects().length)"
BOXES = f"""(selector) => {VISIBLE_SVGS}.map(
    svg => [...svg.querySelectorAll(selector)].map(mark => {{
        const box = mark.getBoundingClientRect();
        return [mark.textContent.trim(), box.left, box.top, box.right, box.bottom];
    }})
)"""
CHOICES = "document.querySelectorAll('input[name=%s]').length"
CHOOSE = "document.getElementById('%s-%d').click()"


def overlapping(boxes):
    """Return the pairs of texts that cover each other by more than a hair."""
    return [
        (one[0], other[0])
        for one, other in combinations(boxes, 2)
        if min(one[3], other[3]) - max(one[1], other[1]) > 0.5
        # a line of text is as high as its font; letters fill about the middle half of it
        and min(one[4], other[4]) - max(one[2], other[2]) > 4
    ]


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", ["full", "plain", "same"])
def test_no_choice_of_plot_has_clipped_or_overlapping_labels(browser, pages, name, width):
    browser.open(pages[name].as_uri(), width=width)
    n_qualities, n_works = browser.run(CHOICES % "quality"), browser.run(CHOICES % "work")
    assert (n_qualities, n_works) == ({"full": 4, "plain": 2, "same": 2}[name], 3)
    seen = set()
    for quality in range(n_qualities):
        for work in range(n_works):
            browser.run(CHOOSE % ("quality", quality))
            browser.run(CHOOSE % ("work", work))
            plots = browser.run(f"({BOXES})('text')")
            assert len(plots) == 3
            seen.add(json.dumps(plots[0]))
            for texts in plots:
                assert overlapping(texts) == []
                assert all(left >= 0 and right <= width for _, left, _, right, _ in texts)
    assert len(seen) == n_qualities * n_works, "a button shows what another one shows"


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_marks_are_inside_their_plots(browser, pages, width):
    browser.open(pages["full"].as_uri(), width=width)
    frames = browser.run(
        f"{VISIBLE_SVGS}.map(s => {{ const b = s.getBoundingClientRect(); "
        "return [b.left, b.top, b.right, b.bottom]; })"
    )
    marks = browser.run(f"({BOXES})('circle, rect, path, line')")
    assert [len(m) > 25 for m in marks] == [True, True, True]
    for (left, top, right, bottom), inside in zip(frames, marks, strict=True):
        assert right - left > 250
        for _, mark_left, mark_top, mark_right, mark_bottom in inside:
            assert left - 1 <= mark_left <= mark_right <= right + 1
            assert top - 1 <= mark_top <= mark_bottom <= bottom + 1
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_a_dark_scheme_is_dark(browser, pages):
    def colours(dark):
        browser.open(pages["full"].as_uri(), dark=dark)
        return [
            browser.run(f"getComputedStyle(document.querySelector('{where}')).{what}")
            for where, what in (("body", "backgroundColor"), ("body", "color"), (".dot", "fill"))
        ]

    light, dark = colours(False), colours(True)
    assert light[0] == "rgb(255, 255, 255)"
    assert all(int(part) < 40 for part in dark[0][4:-1].split(","))
    assert all(one != other for one, other in zip(light, dark, strict=True))


@pytest.mark.parametrize("name", ["full", "hostile"])
def test_nothing_is_refused_requested_or_run(browser, pages, name):
    browser.open(pages[name].as_uri())
    assert browser.complaints() == []
    assert browser.requests() == [pages[name].as_uri()]
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.querySelectorAll('[onmouseover]').length") == 0
    if name == "hostile":
        assert browser.run("document.body.innerText").count(HOSTILE) >= 3


def test_the_policy_stops_what_is_not_ours(browser, pages):
    browser.open(pages["full"].as_uri())
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), "
        "{textContent: 'window.ran = true'}))"
    )
    assert browser.run("window.ran === undefined")
    assert browser.complaints() != []


def test_clicking_a_heading_sorts_and_clicking_again_turns_round(browser, pages):
    browser.open(pages["full"].as_uri())
    types = (
        "[...document.querySelectorAll('.figures tbody:first-of-type th')].map(h => h.innerText)"
    )
    click = "[...document.querySelectorAll('th button')].find(b => b.innerText === 'long texts')"
    before = browser.run(types)
    browser.run(f"{click}.click()")
    fast_first = browser.run(types)
    assert fast_first[:3] == ["Q4_0", "BF16", "F16"]
    assert browser.run(f"{click}.closest('th').getAttribute('aria-sort')") == "descending"
    browser.run(f"{click}.click()")
    assert browser.run(types) == fast_first[::-1]
    assert sorted(before) == sorted(fast_first)


def test_the_page_is_complete_without_scripts(browser, pages):
    browser.open(pages["full"].as_uri(), scripts=False)
    assert browser.run("document.querySelectorAll('th button').length") == 0
    visible = (
        "[...document.querySelectorAll('.pick')].filter(p => p.offsetHeight).map(p => p.className)"
    )
    assert browser.run(visible) == ["pick q2 w2"]
    browser.run(CHOOSE % ("quality", 0))
    assert browser.run(visible) == ["pick q0 w2"]


def test_the_pointer_on_a_circle_shows_its_figures(browser, pages):
    browser.open(pages["plain"].as_uri())
    browser.run("document.querySelector('.pareto').scrollIntoView()")
    circle = next(box for box in browser.run(f"({BOXES})('circle')")[0] if box[1] > 400)
    x, y = (circle[1] + circle[3]) / 2, (circle[2] + circle[4]) / 2
    assert browser.run("document.querySelector('.tip').hidden")
    browser.point_at(x, y)
    shown = browser.run("document.querySelector('.tip').innerText")
    assert "texts/s" in shown
    assert "mean cosine" in shown

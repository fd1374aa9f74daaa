"""The report: all that was found is in it, nothing in it runs, and nothing is drawn as NaN."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from math import nan

import pytest

from embellama.bench.report.page import render_page
from tests.unit.bench.report.samples import HOSTILE, alike, hostile, made_up, unjudged

N_TEXTS = 60
VOID = {"meta", "input"}


class Outline(HTMLParser):
    """The elements of a page with their attributes, checked to be nested well, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.words, self._open = [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def findings():
    return made_up(N_TEXTS)


@pytest.fixture(scope="module")
def page(findings):
    return render_page(findings)


def table_of(page):
    return re.search(r'<table class="figures.*?</table>', page, re.DOTALL)[0]


def svgs_of(page):
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def broken(findings):
    """Return the same where much is not a number, zero, negative or missing."""
    first, second, third, *rest = findings.types
    slow = replace(first.speed["short"], texts_per_s=nan, spread=(nan, nan))
    nowhere = replace(second.latency, p50=nan, p95=nan, p99=nan, samples=())
    opposite = replace(
        third.fidelity, cosine_mean=-0.5, cosine_worst=-1.0, cosines=(-1.0, nan, 0.0, 1.0000001)
    )
    return replace(
        findings,
        tolerance=0.0,
        types=(
            replace(first, speed={"short": slow}, spearman=nan, file_bytes=0),
            replace(second, latency=nowhere, ndcg_10=None, load_s=0.0),
            replace(third, fidelity=opposite, rss_bytes=0),
            *rest,
        ),
    )


def test_every_type_is_in_the_table_and_in_every_plot(page, findings):
    pictures = svgs_of(page)
    assert len(pictures) == 2 * (4 * 3 + 2)
    for name in [found.file_type for found in findings.types]:
        assert f">{name}</th>" in table_of(page)
        for picture in pictures:
            reference_in_histogram = name == "F32" and "bars" in picture
            assert (f">{name}</t" in picture) is not reference_in_histogram


def test_the_figures_are_rounded(page):
    row = Outline(re.search(r"<tr><th[^>]*>(?:(?!<tr>).)*?>BF16</th>.*?</tr>", table_of(page))[0])
    assert "45.9 MB" in row.text
    assert "1,090 15,260 tokens/s" in row.text
    assert "99.7 %" in row.text
    assert "0.8203" in row.text
    assert not re.search(r"\d\.\d{7}", Outline(table_of(page)).text), "nobody reads seven decimals"


def test_recommendations_come_with_reasons_before_any_plot(page, findings):
    text = Outline(page).text
    for advice in findings.recommendations:
        assert 0 < text.index(advice.reason) < text.index("Quality against speed")


def test_failures_are_told(page):
    assert "failed: llama.cpp cannot quantize to Q3_K_S" in table_of(page)


def test_nothing_is_loaded_from_anywhere(page):
    outline = Outline(page)
    assert not {"link", "img", "iframe", "object", "base", "image", "use"} & {
        name for name, _ in outline.elements
    }
    assert not any(
        {"src", "href", "xlink:href", "action", "style"} & attributes.keys()
        for _, attributes in outline.elements
    )
    assert "url(" not in page
    assert "@import" not in page
    assert "//" not in re.sub(r"(?m)^\s*// .*$", "", page), "an address, or a comment of ours"
    policy = next(a["content"] for a in outline.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "connect-src" not in policy, "default-src 'none' holds for connections"


def test_strings_of_the_data_are_text(findings):
    page = render_page(hostile(findings))
    outline = Outline(page)
    assert len(outline.all("script")) == 1
    assert not any("onmouseover" in attributes for _, attributes in outline.elements)
    assert outline.all("b") == []
    assert HOSTILE in "".join(outline.words)
    assert HOSTILE not in page


def test_half_a_surrogate_pair_can_be_written_to_a_file(findings):
    page = render_page(replace(findings, model="a\ud800b"))
    assert "a?b" in page.encode().decode()


def test_measures_not_taken_have_no_column_no_button_and_no_glossary_entry(findings, page):
    assert "Spearman" in table_of(page)
    without = render_page(unjudged(findings))
    cards = re.search(r'<div class="cards">.*?</div></div>', without, re.DOTALL)[0]
    assert "Spearman" not in without.replace(cards, "")
    assert "nDCG" not in without


def test_the_tolerance_means_what_decides(findings, page):
    assert "no more than 0.005 below F32's" in Outline(page).text
    assert "a mean cosine of at least 0.999" in Outline(render_page(unjudged(findings))).text


def test_one_type_alone_is_a_page(findings):
    plain = unjudged(findings)
    alone = replace(plain, types=plain.types[:1], failed={}, recommendations=())
    page = render_page(alone)
    outline = Outline(page)
    assert ">F32</th>" in table_of(page)
    assert "Only one type was measured." in outline.text
    assert "Pareto front" not in re.sub(r"<dl>.*", "", page, flags=re.DOTALL)
    assert len(svgs_of(page)) == 2
    assert outline.all("strong") == [{}], "the model's name; alone, nothing is the best"


def test_a_run_in_which_all_failed_is_a_page(findings):
    page = render_page(replace(findings, types=(), recommendations=()))
    assert svgs_of(page) == []
    text = Outline(page).text
    assert "None of those asked for could be measured" in text
    assert "failed: llama.cpp cannot quantize" in text
    assert "good enough" not in text.partition("Words on this page")[0].lower()


@pytest.mark.parametrize("change", [alike, unjudged, hostile, broken])
def test_pictures_hold_numbers_only(findings, change):
    page = render_page(change(findings))
    Outline(page)
    pictures = svgs_of(page)
    assert pictures
    for picture in pictures:
        places = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|r|d|width|height)="([^"]*)"', picture)
        assert len(places) > 20
        numbers = re.findall(r"[^MLHVhz ]+", " ".join(places))
        assert all(abs(float(number)) < 2000 for number in numbers)


def test_what_is_not_a_number_is_a_dash(findings):
    page = render_page(broken(findings))
    assert "nan" not in Outline(page).text.lower()
    assert "<td>–</td>" in table_of(page)

"""Figures as people read them."""

from math import inf, nan

import pytest

from embellama.bench.report import numbers


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (15260.4, "15,260"),
        (1090, "1,090"),
        (655.3, "655"),
        (58.43, "58.4"),
        (3.217, "3.22"),
        (0.05921, "0.0592"),
        (0.000012, "0.0000"),
        (0, "0"),
        (-4.5, "-4.50"),
        (nan, "–"),
        (inf, "–"),
    ],
)
def test_three_digits_and_the_whole_part(value, written):
    assert numbers.rounded(value) == written


@pytest.mark.parametrize(
    ("size_bytes", "written"),
    [(0, "0 bytes"), (999, "999 bytes"), (45_949_216, "45.9 MB"), (1.7e9, "1.70 GB"), (nan, "–")],
)
def test_sizes(size_bytes, written):
    assert numbers.size(size_bytes) == written


@pytest.mark.parametrize(
    ("cosine", "written"),
    [
        (1.0, "1"),
        (1.0000001, "1"),
        (0.99999976, "1"),
        (0.9999964, "0.999996"),
        (0.99958, "0.99958"),
        (0.9664, "0.966"),
        (0.5, "0.500"),
        (0.0, "0.000"),
        (-0.25, "-0.250"),
        (nan, "–"),
    ],
)
def test_a_cosine_shows_two_digits_of_what_it_lacks(cosine, written):
    assert numbers.cosine(cosine) == written


def test_scores_shares_and_durations():
    assert numbers.score(0.82034) == "0.8203"
    assert numbers.percent(0.9684) == "96.8 %"
    assert numbers.milliseconds(0.00321) == "3.21"
    assert numbers.score(nan) == numbers.percent(nan) == numbers.milliseconds(nan) == "–"

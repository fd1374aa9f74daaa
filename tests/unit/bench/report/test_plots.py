"""Scales, ticks, labels and marks of the plots."""

import re
from dataclasses import replace
from itertools import combinations
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embellama.bench.report.cosine_plot import cosine_plot
from embellama.bench.report.labels import Box, Circle, place_labels
from embellama.bench.report.latency_plot import MOST_DRAWN, latency_plot
from embellama.bench.report.measures import (
    QUALITIES,
    Point,
    good_enough,
    measured_work,
    pareto_front,
    points,
)
from embellama.bench.report.plots import (
    NARROW,
    WIDE,
    Scale,
    Tick,
    nines,
    nines_ticks,
    padded,
    round_ticks,
    without_crowding,
)
from tests.unit.bench.report.samples import made_up, unjudged

COSINE, SPEARMAN = QUALITIES[:2]


@pytest.fixture(scope="module")
def findings():
    return made_up(60)


def point(name, speed, quality):
    return Point(name, speed, (speed, speed), quality, 1000)


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-3.0], [1.0, 2.0, nan, inf]])
def test_a_padded_range_is_never_empty(values):
    low, high = padded(values)
    assert low < min(v for v in values if abs(v) < inf)
    assert high > max(v for v in values if abs(v) < inf)
    assert Scale(low, high, 10, 110)((low + high) / 2) == pytest.approx(60)


def test_what_lies_outside_a_scale_is_drawn_at_its_edge():
    scale = Scale(0, 10, 100, 0)
    assert [scale(v) for v in (-5, 0, 2.5, 10, 99)] == [100, 100, 75, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "2", "4", "6", "8", "10"]),
        (437, 1013, ["500", "600", "700", "800", "900", "1,000"]),
        (0.7975, 0.8215, ["0.800", "0.805", "0.810", "0.815", "0.820"]),
        (-0.3, 0.3, ["-0.3", "-0.2", "-0.1", "0.0", "0.1", "0.2", "0.3"]),
    ],
)
def test_ticks_are_round(low, high, labels):
    assert [tick.label for tick in round_ticks(low, high)] == labels


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_there_are_a_few_ticks_inside_every_range(low, width):
    ticks = round_ticks(low, low + width)
    assert 2 <= len(ticks) <= 8
    assert all(low - width * 1e-6 <= tick.value <= low + width * 1.000001 for tick in ticks)


def test_nines_count_the_nines():
    assert [round(nines(c), 6) for c in (0.9, 0.99, 0.999, 1.0, 1.0000002)] == [1, 2, 3, 7, 7]
    assert nines(-1.0) == pytest.approx(-0.30103)
    assert [tick.label for tick in nines_ticks(0, 7)][::3] == ["0", "0.999", "0.999999"]
    assert nines_ticks(6, 7)[-1].label == "1"


def test_crowded_labels_are_left_out_from_the_far_end():
    ticks = [Tick(i, "0.123456") for i in range(7)]
    assert without_crowding(ticks, Scale(0, 6, 0, 1000)) == ticks
    assert [t.value for t in without_crowding(ticks, Scale(0, 6, 0, 240))] == [0, 2, 4, 6]


def test_the_front_holds_what_nothing_beats_with_ties():
    placed = [
        point("exact", 100, 1.0),
        point("slow", 90, 0.999),
        point("fast", 200, 0.9),
        point("twin", 200, 0.9),
        point("same speed, worse", 200, 0.8),
        point("same quality, slower", 150, 0.9),
    ]
    assert [p.file_type for p in pareto_front(placed)] == ["exact", "fast", "twin"]


def test_points_are_the_types_with_both_measures(findings):
    first, second, *rest = findings.types
    kept = replace(
        findings, types=(replace(first, spearman=None), replace(second, speed={}), *rest)
    )
    assert len(points(kept, SPEARMAN, "short")) == len(rest)
    assert len(points(kept, COSINE, "short")) == len(rest) + 1
    assert points(kept, COSINE, "short")[0].speed == 520


def test_work_is_shown_in_a_fixed_order(findings):
    first, *rest = findings.types
    extra = {"poems": first.speed["own"], **dict(reversed(first.speed.items()))}
    assert measured_work(replace(findings, types=(replace(first, speed=extra), *rest))) == {
        "short": "short texts",
        "long": "long texts",
        "own": "your own texts",
        "poems": "poems texts",
    }


def test_the_limit_is_on_the_measure_that_decides(findings):
    assert good_enough(findings, SPEARMAN) == pytest.approx(0.8203 - 0.005)
    assert good_enough(findings, COSINE) is None
    assert good_enough(unjudged(findings), COSINE) == 0.999
    assert good_enough(unjudged(findings), SPEARMAN) is None


@given(st.lists(st.tuples(st.floats(70, 540), st.floats(50, 350)), min_size=1, max_size=9))
def test_labels_stay_inside_and_apart_wherever_the_circles_are(spots):
    bounds = Box(50, 30, 560, 370)
    circles = [Circle(x, y, 8, 60, 14) for x, y in spots]
    boxes = [place.box for place in place_labels(circles, bounds)]
    assert all(box.shared(bounds) == pytest.approx(box.area) for box in boxes)
    assert all(one.shared(other) == 0 for one, other in combinations(boxes, 2))


def test_a_label_keeps_away_from_what_is_written_and_drawn():
    circle, bounds = Circle(100, 100, 5, 40, 14), Box(0, 0, 300, 300)
    (free,) = place_labels([circle], bounds)
    (moved,) = place_labels([circle], bounds, taken=[free.box])
    assert free.box.shared(moved.box) == 0
    (beside,) = place_labels([circle], bounds, lines=[Box(0, 98, 300, 102)])
    assert beside.box.bottom <= 98 or beside.box.top >= 102


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_durations_far_apart_get_a_logarithmic_axis(findings, width):
    assert "logarithmic" not in latency_plot(findings, width=width)
    first, *rest = findings.types
    slow = replace(first.latency, samples=(*first.latency.samples, 0.9), p99=0.9)
    spread = replace(findings, types=(replace(first, latency=slow), *rest))
    drawn = latency_plot(spread, width=width)
    assert "logarithmic" in drawn
    assert ">500</text>" in drawn


def test_of_many_calls_an_even_choice_is_drawn_with_both_ends(findings):
    first = findings.types[0]
    calls = replace(first.latency, samples=tuple(i / 1000 for i in range(1, 1001)))
    drawn = latency_plot(replace(findings, types=(replace(first, latency=calls),)), width=WIDE)
    dots = re.findall(r"M(\S+) \S+h0", drawn)
    assert len(dots) == MOST_DRAWN
    assert len(set(dots)) == MOST_DRAWN, "evenly spaced durations never fall on one another"


def test_types_without_durations_have_no_row(findings):
    silent = replace(findings.types[0].latency, samples=(), p50=nan, p95=nan, p99=nan)
    without = [replace(found, latency=silent) for found in findings.types]
    assert latency_plot(replace(findings, types=tuple(without)), width=WIDE) == ""
    mixed = (without[0], *findings.types[1:])
    assert latency_plot(replace(findings, types=mixed), width=WIDE).count("<title>") == 7


def test_the_reference_has_no_histogram(findings):
    drawn = cosine_plot(findings, width=WIDE)
    assert drawn.count("<title>") == len(findings.types) - 1
    assert ">F32</text>" not in drawn
    assert cosine_plot(replace(findings, types=findings.types[:1]), width=WIDE) == ""


def test_bars_hold_every_text(findings):
    found = findings.types[3]
    halves = replace(found.fidelity, cosines=(0.95,) * 30 + (0.9995,) * 30)
    alone = replace(findings, types=(replace(found, fidelity=halves),))
    bars = re.search(r'<path d="([^"]+)" class="bars', cosine_plot(alone, width=WIDE))[1]
    heights = [float(low) - float(top) for low, top in re.findall(r"M\S+ ([\d.]+)V([\d.]+)H", bars)]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(heights[1])

import pytest

from embellama.bench.recommend import checked_tolerance, recommend
from embellama.errors import InvalidInputError
from tests.unit.bench.findings_made_up import type_findings

F32 = type_findings("F32", size=90_000_000)
BF16 = type_findings("BF16", size=45_000_000, rates={"short": 200, "long": 20}, cosine=0.99999)
Q8_0 = type_findings("Q8_0", size=25_000_000, rates={"short": 90, "long": 9}, cosine=0.9996)
Q4_0 = type_findings("Q4_0", size=20_000_000, rates={"short": 300, "long": 30}, cosine=0.966)
ALL = (F32, BF16, Q8_0, Q4_0)


def chosen(types, tolerance, reference="F32"):
    return {one.goal: one.file_type for one in recommend(types, reference, tolerance)}


def reasons(types, tolerance):
    return {one.goal: one.reason for one in recommend(types, "F32", tolerance)}


def test_without_judgements_the_mean_cosine_decides():
    assert chosen(ALL, 0.999) == {"smallest": "Q8_0", "fastest": "BF16", "best": "BF16"}
    assert chosen(ALL, 0.95) == {"smallest": "Q4_0", "fastest": "Q4_0", "best": "BF16"}
    assert chosen(ALL, 1.0) == {"smallest": "F32", "fastest": "F32", "best": "BF16"}


def test_the_reasons_hold_the_figures():
    found = reasons(ALL, 0.999)
    assert found["smallest"].startswith("25.0 MB, 28% of F32; mean cosine 0.9996")
    assert found["fastest"].startswith("200 short and 20 long texts/s, 2.00 times F32")
    assert "as good as F32's, and it is faster" in found["best"]


def judged(one, **scores):
    rates = {work: speed.texts_per_s for work, speed in one.speed.items()}
    return type_findings(
        one.file_type,
        size=one.file_bytes,
        rates=rates,
        cosine=one.fidelity.cosine_mean,
        **scores,
    )


def test_judgements_decide_where_they_are():
    types = [judged(F32, spearman=0.86), judged(Q8_0, spearman=0.85), judged(Q4_0, spearman=0.856)]
    assert chosen(types, 0.005)["smallest"] == "Q4_0"
    assert chosen(types, 0.003)["smallest"] == "F32"
    assert chosen(types, 0.01)["smallest"] == "Q4_0"
    assert "Spearman 0.8560 (F32 0.8600)" in reasons(types, 0.005)["smallest"]


def test_both_kinds_of_judgement_have_to_hold():
    types = [
        judged(F32, spearman=0.86, ndcg_10=0.5),
        judged(Q8_0, spearman=0.86, ndcg_10=0.498),
        judged(Q4_0, spearman=0.87, ndcg_10=0.4),
    ]
    assert chosen(types, 0.005)["smallest"] == "Q8_0"


def test_a_lucky_score_makes_no_type_the_best():
    types = [judged(F32, spearman=0.86), judged(Q4_0, spearman=0.9)]
    assert chosen(types, 0.005)["best"] == "F32"
    assert (
        "that Q4_0 scored higher on your data is most likely chance"
        in reasons(types, 0.005)["best"]
    )


def test_own_texts_decide_what_is_fast():
    types = [
        type_findings("F32", rates={"short": 500, "long": 50, "own": 100}),
        type_findings("F16", rates={"short": 100, "long": 10, "own": 120}),
    ]
    assert chosen(types, 0.999)["fastest"] == "F16"
    assert reasons(types, 0.999)["fastest"].startswith("120 texts/s on your own texts, 1.20 times")


def test_a_close_second_is_named():
    types = [
        type_findings("F32", rates={"own": 100.0}, spread=5),
        type_findings("F16", rates={"own": 104.0}, spread=5),
        type_findings("BF16", rates={"own": 80.0}, spread=5),
    ]
    assert reasons(types, 0.999)["fastest"].endswith(
        "Not clearly slower, as the rounds spread: F32."
    )


def test_the_only_type_is_the_best_of_all():
    assert chosen([F32], 0.999) == {"smallest": "F32", "fastest": "F32", "best": "F32"}
    assert "the only type there is" in reasons([F32], 0.999)["best"]


@pytest.mark.parametrize(
    ("given", "is_judged", "expected"),
    [(None, False, 0.999), (None, True, 0.005), (0.9, False, 0.9), (0.0, True, 0.0)],
)
def test_tolerance(given, is_judged, expected):
    assert checked_tolerance(given, judged=is_judged) == expected


@pytest.mark.parametrize(
    ("given", "is_judged", "words"),
    [
        (0.999, True, "may lose, from 0 to 0.5, for example 0.005"),
        (0.005, False, "mean cosine, from 0.5 to 1, for example 0.999"),
        (float("nan"), False, "the tolerance is nan"),
        (-1.0, True, "the tolerance is -1"),
    ],
)
def test_a_tolerance_of_the_other_kind_is_refused(given, is_judged, words):
    with pytest.raises(InvalidInputError, match=words):
        checked_tolerance(given, judged=is_judged)

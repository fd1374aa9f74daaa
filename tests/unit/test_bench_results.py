"""What the programs in benches share: figures written, read, and compared."""

import argparse
import itertools

import pytest

from benches.results import Results, compare, differences, finished, parser, started
from benches.rounds import interleaved
from benches.works import works


def results(**figures):
    made = Results("latency", "a CPU", {"model": "minilm"})
    for name, (values, better) in figures.items():
        made.add(name, values, "ms", better=better)
    return made


def worse(old, new):
    return [change.name for change in compare(old, new) if change.is_regression]


def test_what_is_written_is_read_again(tmp_path):
    made = results(single=([1.0, 2.5, 3.0], "lower"), rate=([7.0], "higher"))
    made.write(tmp_path / "a.json")
    assert Results.read(tmp_path / "a.json") == made


def test_a_name_is_given_once():
    made = results(single=([1.0], "lower"))
    with pytest.raises(ValueError, match="measured before"):
        made.add("single", 2.0, "ms", better="lower")


@pytest.mark.parametrize(
    ("better", "old", "new", "is_worse"),
    [
        ("lower", [10, 10, 10], [12, 12, 12], True),
        ("lower", [10, 10, 10], [10.5, 10.5, 10.5], False),  # within the tolerance
        ("lower", [10, 10, 10], [8, 8, 8], False),
        ("higher", [10, 10, 10], [8, 8, 8], True),
        ("higher", [10, 10, 10], [9.5, 9.5, 9.5], False),
        ("higher", [10, 10, 10], [12, 12, 12], False),
        ("lower", [8, 10, 18], [9, 12, 17], False),  # within the spread
        ("higher", [8, 10, 18], [7, 8.5, 11], False),
        ("lower", [9.9, 10, 10, 10, 10.1, 10.1, 90], [12] * 7, True),  # one outlier excuses nothing
        ("lower", [10], [12], True),
    ],
)
def test_a_regression_is_beyond_tolerance_and_spread(better, old, new, is_worse):
    assert worse(results(x=(old, better)), results(x=(new, better))) == ["x"] * is_worse


def test_the_sign_says_whether_it_is_worse():
    (change,) = compare(results(x=([10], "higher")), results(x=([15], "higher")))
    assert change.worse == pytest.approx(-0.5)
    assert "50% better" in str(change)


def test_only_figures_of_both_are_compared_and_the_others_named():
    old = results(a=([1], "lower"), b=([1], "lower"))
    new = results(b=([1], "lower"), c=([1], "lower"))
    assert [change.name for change in compare(old, new)] == ["b"]
    assert differences(old, new) == ["not there before: c", "gone: a"]


def test_other_machines_and_settings_are_told():
    old, new = results(), results()
    new.machine, new.settings = "another CPU", {"model": "minilm:Q8_0", "rounds": 3}
    said = differences(old, new)
    assert said[0] == "another machine or build: a CPU"
    assert said[1:] == ["model was minilm, is minilm:Q8_0", "rounds was None, is 3"]


def test_a_file_of_another_bench_is_told_and_nothing_else():
    other = Results("memory", "another CPU")
    assert differences(other, results(a=([1], "lower"))) == ["the other file is of benches.memory"]


def test_the_status_says_whether_anything_is_worse(tmp_path, capsys):
    path = tmp_path / "a.json"
    run = parser("what it is").parse_args(["--json", str(path)])
    assert finished(results(x=([10], "lower")), run) == 0
    again = parser(None).parse_args(["--json", str(path), "--compare", str(path)])
    assert finished(results(x=([20], "lower")), again) == 1
    assert "100% worse" in capsys.readouterr().out
    assert finished(results(x=([20], "lower")), again) == 0  # the file was written anew


def test_the_load_of_the_machine_is_not_part_of_its_name(capsys):
    options = argparse.Namespace(json=None, compare=None, layout=(2, 1))
    made = started("latency", "a CPU, 2 cores, load 1.7, AVX2", options)
    assert (made.machine, made.settings) == ("a CPU, 2 cores, AVX2", {"layout": [2, 1]})
    assert "load 1.7" in capsys.readouterr().out


def test_runs_take_turns_and_the_first_round_does_not_count():
    order = []
    number = itertools.count()
    seconds = interleaved(
        {name: lambda name=name: order.append((name, next(number))) for name in "ab"}, 2
    )
    rounds = ["".join(name for name, _ in order[at : at + 2]) for at in (0, 2, 4)]
    assert all(sorted(each) == ["a", "b"] for each in rounds)
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_the_kinds_of_work_differ_in_length_and_repeat_nothing():
    made = works(400)
    words = {
        name: sum(map(len, map(str.split, texts))) / len(texts) for name, texts in made.items()
    }
    assert words["short"] * 3 < words["mixed"] < words["passages"] / 3
    assert [len(texts) for texts in made.values()] == [400, 100, 25]
    assert all(len(set(texts)) == len(texts) for texts in made.values())
    assert made == works(400)

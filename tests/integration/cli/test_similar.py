import json

import pytest

LINES = b"""\
The stock market fell sharply on Monday.
A cat is sleeping on the sofa.
Photosynthesis happens in leaves.
The kitten naps on the couch.
He plays the piano every evening.
Gr\xc3\xbc\xc3\x9fe aus M\xc3\xbcnchen
"""


def test_the_nearest_lines_come_first(run, minilm_path):
    outcome = run("similar", minilm_path, "a dozing cat", "--top", "2", stdin=LINES)
    rows = [line.split(maxsplit=2) for line in outcome.out.splitlines()]
    assert (outcome.status, outcome.err) == (0, "")
    assert [(row[1], row[2]) for row in rows] == [
        ("2", "A cat is sleeping on the sofa."),
        ("4", "The kitten naps on the couch."),
    ]
    assert 1 > float(rows[0][0]) > float(rows[1][0]) > 0.3


def test_json_has_scores_lines_and_texts(run, minilm_path, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(LINES)
    outcome = run("similar", minilm_path, "Grüße aus München", "-f", path, "--format", "json")
    matches = json.loads(outcome.out)
    assert len(matches) == 5
    assert matches[0]["text"] == "Grüße aus München"
    assert matches[0]["line"] == 6
    assert matches[0]["score"] == pytest.approx(1, abs=1e-3)
    assert "Grüße" in outcome.out


def test_equal_lines_keep_their_order_and_more_than_there_are_is_all(run, minilm_path):
    outcome = run("similar", minilm_path, "b", "--top", "9", "--skip-blank", stdin=b"a\n\na\na\n")
    assert [line.split()[1] for line in outcome.out.splitlines()] == ["1", "3", "4"]


def test_lines_of_many_blocks_keep_their_numbers(run, minilm_path):
    stdin = b"".join(b"row %d\n" % n for n in range(1, 1101)) + b"a sleeping cat\n"
    outcome = run("similar", minilm_path, "a cat asleep", "--top", "1", stdin=stdin)
    assert outcome.out.split(maxsplit=1)[1] == "1101  a sleeping cat\n"


def test_nothing_to_look_in_gives_nothing(run, minilm_path):
    outcome = run("similar", minilm_path, "x")
    assert (outcome.status, outcome.out) == (0, "")


@pytest.mark.parametrize(
    ("query", "stdin", "words"),
    [
        (" ", b"a\n", "QUERY is blank"),
        ("word " * 600, b"a\n", "QUERY cannot be embedded"),
        ("a", b"a\n\n", "line 2: blank"),
    ],
)
def test_bad_input_exits_with_2(run, minilm_path, query, stdin, words):
    outcome = run("similar", minilm_path, query, stdin=stdin)
    assert (outcome.status, outcome.out) == (2, "")
    assert words in outcome.err


def test_top_of_none_is_wrong_usage(run, minilm_path):
    assert run("similar", minilm_path, "x", "--top", "0").status == 2


def score_of(run, model, query, line, *options):
    outcome = run("similar", model, query, "--format", "json", *options, stdin=line.encode())
    assert (outcome.status, outcome.err) == (0, "")
    return json.loads(outcome.out)[0]["score"]


def test_prompts_go_by_role_unless_one_is_chosen(run, prompted, minilm_path):
    given = (run, prompted, "a cat", "a dog\n")
    by_role = score_of(run, minilm_path, "query: a cat", "passage: a dog\n")
    assert score_of(*given) == by_role
    for_both = score_of(run, minilm_path, "query: a cat", "query: a dog\n")
    assert score_of(*given, "--kind", "query") == for_both
    assert score_of(*given, "--prompt-name", "query") == for_both
    assert score_of(*given, "--prompt", "") == score_of(run, minilm_path, "a cat", "a dog\n")
    assert len({by_role, for_both, score_of(*given, "--prompt", "")}) == 3


def test_what_is_cut_is_told_of_either_side(run, minilm_path):
    long = "word " * 600
    outcome = run("similar", minilm_path, long, "--overflow", "truncate", stdin=long.encode())
    assert outcome.status == 0
    assert outcome.out.startswith(" 1.0000  1  word")
    assert outcome.err == (
        "embellama: warning: QUERY cut, 90 tokens dropped\n"
        "embellama: warning: 1 of 1 texts cut, 90 tokens dropped: line 1\n"
    )


def test_shorter_vectors_and_a_cache(run, minilm_path, tmp_path):
    options = ("--dimensions", "64", "--force-dimensions", "--cache", tmp_path / "vectors.db")
    first = score_of(run, minilm_path, "a cat", "a kitten\n", *options)
    assert score_of(run, minilm_path, "a cat", "a kitten\n", *options) == first
    # a cache holds whole vectors: another length comes from the same ones
    whole = score_of(run, minilm_path, "a cat", "a kitten\n", *options[3:])
    assert whole == pytest.approx(score_of(run, minilm_path, "a cat", "a kitten\n"), abs=1e-3)
    assert whole != first

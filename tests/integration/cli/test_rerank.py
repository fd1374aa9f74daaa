import json

import pytest

from embellama import EmbeddingEngine
from tests.tiny_cross_encoder import DOCUMENTS, LONG_DOCUMENT, QUERY

LINES = "".join(f"{document}\n" for document in DOCUMENTS).encode()


@pytest.fixture(scope="module")
def expected(cross_encoder):
    """Lines and logits, the best first."""
    with EmbeddingEngine() as engine:
        engine.load_model(cross_encoder, name="rank")
        results = engine.rerank("rank", QUERY, DOCUMENTS, normalize=False)
    return [(result.index + 1, result.score) for result in results]


def test_texts_are_listed_the_best_first(run, cross_encoder, expected):
    outcome = run("rerank", cross_encoder, QUERY, *DOCUMENTS)
    rows = [line.split(maxsplit=2) for line in outcome.out.splitlines()]
    assert (outcome.status, outcome.err) == (0, "")
    assert [int(row[1]) for row in rows] == [line for line, _ in expected]
    assert [row[2] for row in rows] == [DOCUMENTS[line - 1] for line, _ in expected]
    assert all(0 < float(row[0]) < 1 for row in rows)


def test_json_and_logits(run, cross_encoder, expected):
    outcome = run("rerank", cross_encoder, QUERY, "--raw", "--json", "--top", "2", stdin=LINES)
    rows = json.loads(outcome.out)
    assert [row["line"] for row in rows] == [line for line, _ in expected[:2]]
    assert [row["score"] for row in rows] == [pytest.approx(s, abs=1e-4) for _, s in expected[:2]]
    assert rows[0]["text"] == DOCUMENTS[expected[0][0] - 1]


def test_lines_of_a_file_keep_their_numbers(run, cross_encoder, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"hi\n\nthe panda is a bear.\n")
    outcome = run("rerank", cross_encoder, QUERY, "-f", path, "--skip-blank")
    assert sorted(line.split()[1] for line in outcome.out.splitlines()) == ["1", "3"]


def test_many_lines_keep_their_numbers(run, cross_encoder):
    outcome = run("rerank", cross_encoder, QUERY, "--top", "1", stdin=b"hi\n" * 6000 + LINES)
    (row,) = outcome.out.splitlines()
    assert row.split(maxsplit=2)[1:] == ["6001", DOCUMENTS[0]]


def test_what_is_cut_is_told_also_where_it_is_not_shown(run, cross_encoder):
    documents = (*DOCUMENTS, LONG_DOCUMENT)
    outcome = run("rerank", cross_encoder, QUERY, *documents, "--overflow", "truncate", "--top=1")
    assert outcome.status == 0
    assert len(outcome.out.splitlines()) == 1
    assert outcome.err == (
        "embellama: warning: 1 of 7 texts cut, 60 tokens dropped: TEXT 7\n"
    )  # fmt: skip


def test_nothing_to_order_gives_nothing(run, cross_encoder):
    assert (outcome := run("rerank", cross_encoder, QUERY)).status == 0
    assert outcome.out == ""
    assert json.loads(run("rerank", cross_encoder, QUERY, "--json").out) == []


@pytest.mark.parametrize(
    ("query", "stdin", "options", "words"),
    [
        (" ", b"a\n", [], "QUERY is blank"),
        (LONG_DOCUMENT, b"a\n", [], "the query has"),
        (QUERY, b"a\n\n", [], "line 2: blank"),
        (QUERY, f"a\n{LONG_DOCUMENT}\n".encode(), [], "line 2 (108 tokens): over the limit of 48"),
        (QUERY, b"a\n\x01\x02\n", [], "line 2: nothing to embed"),
        (QUERY, b"a\n", ["--overflow", "window"], "--overflow"),
        (QUERY, b"a\n", ["--top", "0"], "--top"),
    ],
)
def test_bad_input_exits_with_2(run, cross_encoder, query, stdin, options, words):
    outcome = run("rerank", cross_encoder, query, *options, stdin=stdin)
    assert (outcome.status, outcome.out) == (2, "")
    assert words in outcome.err


def test_each_kind_of_model_refuses_the_others_work(run, cross_encoder, tiny_path):
    outcome = run("rerank", tiny_path, "a", "b")
    assert outcome.status == 2
    assert "scores no pairs" in outcome.err
    outcome = run("embed", cross_encoder, "a")
    assert outcome.status == 2
    assert "it makes no vectors" in outcome.err

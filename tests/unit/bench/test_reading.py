import pytest

from embellama.bench.reading import read_pairs, read_relevance, read_texts
from embellama.errors import EmptyInputError, InvalidInputError

HEADER = "score\tsentence1\tsentence2\n"


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def test_a_text_is_a_line_whatever_ends_it(write):
    path = write("t.txt", b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\r\na\tb\x0bc\nlast")
    assert read_texts(path) == ("Grüße", "a\tb\x0bc", "last")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("a\n\nb\n  \n", "lines 2, 4: blank"),
        ("a\n" + "\n" * 7, "lines 2, 3, 4, 5, 6 and 2 more: blank"),
        (b"a\nb\xff\n", "line 2 is not UTF-8 (byte 0xff at 2)"),
    ],
)
def test_texts_that_cannot_be_used(write, content, words):
    with pytest.raises(InvalidInputError) as caught:
        read_texts(write("t.txt", content))
    assert words in str(caught.value)
    assert "t.txt" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInputError, match="cannot read .*No such file"):
        read_texts(tmp_path / "none")


def test_columns_are_found_by_name_and_quotes_are_quotes(write):
    path = write("p.tsv", 'id\tSentence2\tscore\tsentence1\n7\t"b" said\t1.5\t"a\n8\td\t-2\tc"\n')
    pairs = read_pairs(path)
    assert pairs.first == ('"a', 'c"')
    assert pairs.second == ('"b" said', "d")
    assert pairs.scores == (1.5, -2.0)


def test_commas_come_with_quoting(write):
    pairs = read_pairs(write("p.csv", 'score,sentence1,sentence2\n1,"a, b",c\n2,"d ""e""",f\n'))
    assert pairs.first == ("a, b", 'd "e"')


def test_pairs_know_their_sentences_and_can_be_thinned(write):
    body = "".join(f"{n}\ts{n}\ts{n + 1}\n" for n in range(10))
    pairs = read_pairs(write("p.tsv", HEADER + body))
    assert pairs.sentences == (*(f"s{n}" for n in range(10)), "s10")
    assert pairs.thinned(3).scores == (0, 3, 6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("score\tsentence1\n1\ta\n", "line 1: no column sentence2"),
        ("5.0\tone\ttwo\n", "line 1: no column score or sentence1 or sentence2"),
        (HEADER + "1\ta\tb\n2\ta\n", "line 3: 2 columns, and the header has 3"),
        (HEADER + "1\ta\tb\n\n", "line 3: 0 columns"),
        (HEADER + "high\ta\tb\n", "line 2: the score 'high' is no number"),
        (HEADER + "nan\ta\tb\n", "line 2: the score 'nan' is not finite"),
        (HEADER + "1\ta\t \n", "line 2: a sentence is blank"),
        (HEADER, "0 pairs with 0 different scores"),
        (HEADER + "1\ta\tb\n1\tc\td\n", "2 pairs with 1 different scores"),
        (HEADER + "1\t" + "a" * 200_000 + "\tb\n", "line 2: no row of a table"),
    ],
)
def test_pairs_that_cannot_be_used(write, content, words):
    with pytest.raises(InvalidInputError) as caught:
        read_pairs(write("p.tsv", content))
    assert words in str(caught.value)


@pytest.fixture
def relevance(write):
    """Read three small files, one of which may be another."""

    def read(*, texts="d1\tone\nd2\ttwo\nd3\tthree\n", queries="q1\twhat\nq2\twho\nq3\twhy\n",
             qrels="q2 0 d3 1\nq1 0 d1 0\nq2 0 d1 2\n"):  # fmt: skip
        return read_relevance(
            write("docs.tsv", texts), write("q.tsv", queries), write("qrels.txt", qrels)
        )

    return read


def test_judgements_are_brought_together_by_ids(relevance):
    found = relevance()
    assert found.documents == ("one", "two", "three")
    # q1 has nothing relevant, and q3 no judgement
    assert found.queries == ("who",)
    assert found.judged == ({2: 1.0, 0: 2.0},)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"qrels": "q1 0 d9 1\n"}, "judges 1 documents that"),
        ({"qrels": "q1 0 d9 1\n"}, "(d9; its own ids are like d1, d2, d3)"),
        ({"qrels": "x1 0 d1 1\n"}, "judges 1 queries that"),
        ({"qrels": "".join(f"x{n} 0 d1 1\n" for n in range(9))}, "(x0, x1, x2, x3, x4…;"),
        ({"qrels": "q1 0 d1 0\n"}, "judges no document above 0 for any of the 3 queries"),
        ({"qrels": "q1 d1 1\n"}, "line 1: 3 columns; a judgement has four"),
        ({"qrels": "q1 0 d1 1\nq1 0 d1 0\n"}, "line 2: document 'd1' is judged twice"),
        ({"qrels": "q1 0 d1 yes\n"}, "line 1: the relevance 'yes' is no number"),
        ({"texts": "d1\tone\nplain\n"}, "line 2: not of the form `id<TAB>text`"),
        ({"texts": "d1\t\n"}, "line 1: not of the form"),
        ({"queries": "q1\ta\nq1\tb\n"}, "line 2: the id 'q1' is there twice"),
    ],
)
def test_relevance_that_does_not_fit(relevance, files, words):
    with pytest.raises(InvalidInputError) as caught:
        relevance(**files)
    assert words in str(caught.value)


def test_blank_ones_have_a_class_of_their_own(write):
    with pytest.raises(EmptyInputError):
        read_texts(write("t.txt", " \n"))

import pytest

from embellama.bench.data import evenly_spaced, gather
from embellama.errors import InvalidInputError


@pytest.fixture
def files(tmp_path):
    contents = {
        "texts": "b\na\nb\nc\n",
        "documents": "d1\tone\nd2\ttwo\n",
        "pairs": "score\tsentence1\tsentence2\n1\ta\tb\n2\tb\tc\n3\tc\td\n",
        "queries": "q\twhich\n",
        "qrels": "q 0 d2 1\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    return {name: tmp_path / name for name in contents}


def test_without_files_the_built_in_texts_are_taken_and_said_so():
    data = gather(max_texts=1000)
    assert not data.own
    assert "built into embellama" in data.texts_from
    assert len(set(data.texts)) == len(data.texts) > 100


def test_own_texts_are_taken_once_each(files):
    data = gather(texts=files["texts"], max_texts=1000)
    assert data.texts == ("b", "a", "c")
    assert (data.own, data.texts_from) == (True, "texts of texts")


def test_sentences_of_pairs_are_texts_too(files):
    data = gather(pairs=files["pairs"], max_texts=1000)
    assert data.texts == ("a", "b", "c", "d")
    assert data.own
    assert data.texts_from == "sentences of the pairs in pairs"
    both = gather(texts=files["texts"], pairs=files["pairs"], max_texts=1000)
    assert both.texts == ("b", "a", "c")
    assert both.pairs == data.pairs


def test_documents_have_ids(files):
    data = gather(
        texts=files["documents"], queries=files["queries"], qrels=files["qrels"], max_texts=9
    )
    assert data.texts == ("one", "two")
    assert data.relevance.judged == ({1: 1.0},)


def test_what_is_left_out_is_said(files):
    data = gather(pairs=files["pairs"], max_texts=2, max_pairs=2)
    assert data.texts == ("a", "c")
    assert data.texts_from == "2 of 4 sentences of the pairs in pairs; Spearman of 2 of 3 pairs"
    assert data.pairs.scores == (1, 2)


def test_some_of_many_are_spread_over_all():
    assert evenly_spaced(list("abcdefghij"), 3) == ["a", "d", "g"]
    assert evenly_spaced(["a"], 3) == ["a"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["queries"], "--queries needs --qrels"),
        (["qrels", "texts"], "--qrels needs --queries"),
        (["queries", "qrels"], "--queries needs --texts"),
    ],
)
def test_files_that_need_each_other(files, given, words):
    with pytest.raises(InvalidInputError, match=words):
        gather(**{name: files[name] for name in given}, max_texts=9)

import numpy as np
import pytest

from embellama.bench.data import BenchData
from embellama.bench.quality import Quality, fidelities, judge
from embellama.bench.reading import Pairs, Relevance
from embellama.errors import EmptyInputError, InvalidInputError

ROWS = {"one": [1, 0], "two": [0, 1], "both": [1, 1], "mostly one": [2, 1], "?": [0.1, 1]}


class Looked:
    """Stands in for an embedder: rows by text."""

    def __init__(self):
        self.calls = []

    def embed(self, file_type, texts, kind="document"):
        self.calls.append((kind, list(texts)))
        if "" in texts:
            raise EmptyInputError("text 1", indices=[list(texts).index("")])
        return np.array([ROWS[text] for text in texts], dtype=np.float32)


def data(*texts, **more):
    return BenchData(texts=texts, texts_from="here", own=True, **more)


def test_texts_and_pairs_are_embedded_once_each():
    pairs = Pairs(("one", "one", "one"), ("both", "mostly one", "two"), (3.0, 5.0, 0.0))
    embedder = Looked()
    found = judge(embedder, "F16", data("two", "one", pairs=pairs))
    assert embedder.calls == [("document", ["two", "one", "both", "mostly one"])]
    assert found.vectors.tolist() == [[0, 1], [1, 0]]
    assert found.spearman == pytest.approx(1)
    assert found.ndcg_10 is None


def test_queries_have_a_role_of_their_own():
    relevance = Relevance(("one", "two", "both"), ("?",), ({1: 1.0},))
    embedder = Looked()
    found = judge(embedder, "F16", data("one", relevance=relevance))
    assert ("query", ["?"]) in embedder.calls
    assert (found.ndcg_10, found.spearman) == (1.0, None)
    worse = Relevance(("one", "two", "both"), ("?",), ({0: 1.0},))
    assert judge(Looked(), "F16", data("one", relevance=worse)).ndcg_10 == pytest.approx(0.5)


def test_a_text_that_no_model_takes_is_quoted():
    with pytest.raises(InvalidInputError, match="1 of the texts cannot be embedded, such as ''"):
        judge(Looked(), "F16", data("one", ""))


def quality(*rows):
    return Quality(np.array(rows, dtype=np.float32), None, None)


def test_fidelity_names_the_worst_text():
    qualities = {
        "F32": quality([1, 0], [0, 1], [1, 1]),
        "Q4_0": quality([1, 0.1], [0, 1], [1, 0]),
    }
    found = fidelities(qualities, "F32", ["F32", "Q4_0"], ["x", "y", "z"])
    assert found["F32"].cosines == (1, 1, 1)
    assert (found["F32"].cosine_worst, found["F32"].neighbour_overlap) == (1, 1)
    bad = found["Q4_0"]
    assert (bad.worst_text, bad.cosine_worst) == ("z", pytest.approx(0.5**0.5))
    assert bad.cosine_mean == pytest.approx(np.mean(bad.cosines))
    assert bad.cosines[1] == 1

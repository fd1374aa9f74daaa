import numpy as np
import pytest

from embellama.cli.embedding import Cuts, embedded, located
from embellama.cli.texts import Texts
from embellama.engine import EmbeddingEngine
from embellama.errors import (
    BatchError,
    EmbeddingGenerationError,
    EmptyInputError,
    InvalidInputError,
    ModelNotFoundError,
)


def numbered(n, *, read=False):
    texts = Texts([(10 * i, f"t{i}") for i in range(1, n + 1)], kind="line", total=n)
    if read:
        texts.all()
    return texts


def told(cuts, texts, capsys):
    cuts.tell(texts)
    return capsys.readouterr().err


def test_nothing_cut_is_nothing_said(capsys):
    texts, cuts = numbered(2, read=True), Cuts()
    for _ in range(2):
        cuts.note(0, texts)
    assert told(cuts, texts, capsys) == ""


def test_what_was_cut_is_counted_and_named(capsys):
    texts, cuts = numbered(3, read=True), Cuts()
    for n_dropped in (5, 0, 7):
        cuts.note(n_dropped, texts)
    expected = "embellama: warning: 2 of 3 texts cut, 12 tokens dropped: line 10, 30\n"
    assert told(cuts, texts, capsys) == expected


def test_of_many_cuts_the_first_are_named(capsys):
    texts, cuts = numbered(25, read=True), Cuts()
    for _ in range(25):
        cuts.note(1, texts)
    assert "25 of 25 texts cut, 25 tokens dropped: line 10, 20" in (
        err := told(cuts, texts, capsys)
    )
    assert err.endswith("100 and 15 more\n")


def test_a_complaint_about_one_text_uses_the_users_number():
    texts = numbered(100, read=True)
    assert str(located(EmptyInputError("", indices=[1]), texts, 64, 36)).startswith("line 660:")
    failed = BatchError("2 failed", failed_indices=[0, 2])
    failed.__cause__ = EmbeddingGenerationError("the reason")
    assert str(located(failed, texts, 64, 36)) == "line 650, 670: the reason"
    assert located(failed, texts, 64, 36).failed_indices == (64, 66)


def test_a_complaint_about_some_text_says_among_which():
    exc = located(EmbeddingGenerationError("NaN in text 3"), numbered(100, read=True), 64, 36)
    assert str(exc) == "line 650 to 1000, counted from 0: NaN in text 3"


def test_a_complaint_about_the_model_stays_as_it_is():
    exc = ModelNotFoundError("no such")
    assert located(exc, numbered(1, read=True), 0, 1) is exc


@pytest.fixture
def tiny(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="tiny")
        yield engine


def test_vectors_come_in_order_over_many_blocks(tiny):
    rows = [" ".join("abc"[(n + i) % 3] for i in range(1 + n % 7)) for n in range(700)]
    texts = Texts(list(enumerate(rows, 1)), kind="line", total=None)
    with embedded(tiny, "tiny", texts, {}) as vectors:
        found = np.stack(list(vectors))
    np.testing.assert_allclose(found, tiny.embed_batch("tiny", rows), atol=1e-3)


def test_the_first_vectors_do_not_wait_for_the_last_text(tiny):
    def endless():
        number = 0
        while True:
            number += 1
            yield number, "a b c"

    with embedded(tiny, "tiny", Texts(endless(), kind="line", total=None), {}) as vectors:
        assert [next(vectors).shape for _ in range(1000)] == [(64,)] * 1000


def test_cuts_of_every_block_are_told_in_the_end(tiny, capsys):
    rows = ["a" if n % 100 else "a " * 20 for n in range(700)]
    texts = Texts(list(enumerate(rows, 1)), kind="line", total=None)
    with embedded(tiny, "tiny", texts, {"overflow": "truncate"}) as vectors:
        assert len(list(vectors)) == 700
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == (
        "embellama: warning: 7 of 700 texts cut, 42 tokens dropped: "
        "line 1, 101, 201, 301, 401, 501, 601\n"
    )


def test_a_bad_text_of_a_later_block_is_named(tiny):
    rows = ["a"] * 650 + ["\x01\x02"]
    texts = Texts(list(enumerate(rows, 1)), kind="line", total=None)
    with (
        pytest.raises(InvalidInputError, match=r"^line 651: nothing to embed"),
        embedded(tiny, "tiny", texts, {}) as vectors,
    ):
        list(vectors)

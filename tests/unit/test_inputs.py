import numpy as np
import pytest

from embellama.errors import (
    ConfigurationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.inputs import check_overflow, check_text, check_texts, encode_suspects


class WordTokenizer:
    """Two special tokens and one a word; a word of U+D800 cannot be read."""

    n_special = 2

    def encode(self, text):
        if "\ud800" in text:
            raise InvalidInputError("a lone surrogate")
        return np.zeros(2 + len(text.split()), dtype=np.int32)

    def surely_fits(self, text, limit):
        return text == "plain"


def suspects(texts, limit=5, **kwargs):
    return encode_suspects(texts, WordTokenizer(), limit=limit, n_jobs=2, **kwargs)


@pytest.mark.parametrize("value", [b"bytes", None, 3, ["a"]])
def test_a_text_is_a_str(value):
    with pytest.raises(InvalidInputTypeError):
        check_text(value)


@pytest.mark.parametrize(
    "value", ["one str", b"bytes", None, 3, {"a": 1}, iter(["a"]), (c for c in "ab")]
)
def test_texts_are_a_sequence(value):
    with pytest.raises(InvalidInputTypeError, match="sequence of str"):
        check_texts(value)


def test_lists_tuples_and_arrays_are_taken():
    assert check_texts(["a", "b"]) == ["a", "b"]
    assert check_texts(("a",)) == ("a",)
    assert check_texts(np.array(["a", "b"])) == ["a", "b"]


def test_one_wrong_item_among_many_is_named():
    texts = ["fine"] * 1000
    texts[617] = b"bytes"
    with pytest.raises(InvalidInputTypeError, match="617 is bytes; decode it first") as caught:
        check_texts(texts)
    assert caught.value.indices == (617,)


def test_a_window_of_a_stream_counts_on():
    with pytest.raises(InvalidInputTypeError, match="101 is None") as caught:
        check_texts(["a", None], first_index=100)
    assert caught.value.indices == (101,)


def test_texts_that_surely_fit_are_left_for_later():
    encoded = suspects(["plain", "a b", "plain"])
    assert list(encoded) == [1]
    assert len(encoded[1]) == 4


def test_every_empty_text_is_named():
    with pytest.raises(EmptyInputError, match="text 1, 3") as caught:
        suspects(["plain", "", "a", "  "])
    assert caught.value.indices == (1, 3)


def test_every_long_text_is_named_with_its_count_and_the_limit():
    with pytest.raises(InputTooLongError, match=r"limit of 5 tokens .* 0 \(6 tokens\)") as caught:
        suspects(["a b c d", "a b c", "a b c d e"])
    assert caught.value.indices == (0, 2)
    assert caught.value.n_tokens == (6, 7)
    assert caught.value.limit == 5


def test_faults_of_several_kinds_are_told_in_one_error():
    with pytest.raises(InvalidInputError) as caught:
        suspects(["", "a b c d", "\ud800", "a"], first_index=10)
    assert caught.value.indices == (10, 11, 12)
    for part in ("nothing to embed in text 10", "text 11 (6 tokens)", "12 (a lone surrogate)"):
        assert part in str(caught.value)


def test_a_message_names_ten_and_counts_the_rest():
    with pytest.raises(EmptyInputError, match="and 290 more") as caught:
        suspects([""] * 300)
    assert len(caught.value.indices) == 300


def test_an_unknown_policy_for_long_texts_is_refused():
    with pytest.raises(ConfigurationError, match="'cut'"):
        check_overflow("cut")

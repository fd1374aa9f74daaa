import numpy as np
import pytest

from embellama.encoding import InputEncoder
from embellama.errors import (
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
)
from embellama.inputs import check_input, check_inputs, check_text, check_texts, encode_suspects


class WordTokenizer:
    """Two special tokens and one a word; a word of U+D800 cannot be read."""

    n_special = 2
    prefix = np.array([1], dtype=np.int32)
    suffix = np.array([2], dtype=np.int32)

    def encode(self, text, *, add_special=True):
        if "\ud800" in text:
            raise InvalidInputError("a lone surrogate")
        words = [10] * len(text.split())
        return np.array([1, *words, 2] if add_special else words, dtype=np.int32)

    def surely_fits(self, text, limit):
        return text == "plain"


def suspects(texts, limit=5, overflow="error", **kwargs):
    encoder = InputEncoder(WordTokenizer(), limit=limit, overflow=overflow)
    return encode_suspects(texts, encoder, n_jobs=2, **kwargs)


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
    assert encoded[1].n_tokens == 4


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
        suspects(["", "a b c d", "\ud800", "a"], places=lambda position: [10 + position])
    assert caught.value.indices == (10, 11, 12)
    for part in ("nothing to embed in text 10", "text 11 (6 tokens)", "12 (a lone surrogate)"):
        assert part in str(caught.value)


def test_a_message_names_ten_and_counts_the_rest():
    with pytest.raises(EmptyInputError, match="and 290 more") as caught:
        suspects([""] * 300)
    assert len(caught.value.indices) == 300


def test_a_repeated_faulty_text_is_named_at_each_of_its_places():
    with pytest.raises(EmptyInputError) as caught:
        suspects(["", "a", " "], places=lambda position: [[0, 7], [1], [4]][position])
    assert caught.value.indices == (0, 4, 7)


def test_long_texts_are_no_fault_where_they_are_cut():
    encoded = suspects(["a b c d e f"], overflow="truncate")
    assert encoded[0].n_dropped == 3


@pytest.mark.parametrize(
    "ids", [[1, 10, 2], (1, 10, 2), np.array([1, 10, 2]), np.array([1, 10, 2], dtype=np.uint8)]
)
def test_token_ids_come_as_any_sequence_of_int(ids):
    checked = check_input(ids, n_vocab=11)
    assert checked.dtype == np.int32
    assert checked.tolist() == [1, 10, 2]


def test_texts_and_token_ids_may_be_mixed():
    checked = check_inputs(["a text", [1, 2]], n_vocab=11)
    assert checked[0] == "a text"
    assert checked[1].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 11], InvalidInputError, "input 5 has the token id 11; .* has 0 to 10"),
        ([-1, 3], InvalidInputError, "token id -1"),
        ([2**40], InvalidInputError, str(2**40)),
        ([], EmptyInputError, "input 5 has no token ids"),
        ([1.5], InvalidInputTypeError, "of type float64"),
        ([True, False], InvalidInputTypeError, "of type bool"),
        ([[1, 2], [3, 4]], InvalidInputTypeError, r"shape \(2, 2\)"),
        ([[1, 2], [3]], InvalidInputTypeError, "nested"),
        (["a"], InvalidInputTypeError, "of type <U1"),
    ],
)
def test_wrong_token_ids_are_refused_with_the_place_and_the_limit(ids, error, message):
    with pytest.raises(error, match=message) as caught:
        check_inputs(["a", ids], n_vocab=11, first_index=4)
    assert caught.value.indices == (5,)


def test_among_token_ids_anything_else_is_named():
    with pytest.raises(InvalidInputTypeError, match="1 is None, 2 is int") as caught:
        check_inputs([[1], None, 3], n_vocab=11)
    assert caught.value.indices == (1, 2)

import unicodedata

import pytest

from embellama.wordpiece import MAX_WORD_CHARS, UNKNOWN, WordPieceNormalizer

uncased = WordPieceNormalizer()
cased = WordPieceNormalizer(lowercase=False, strip_accents=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello, world!"),
        ("Ångström", "angstrom"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευσ"),  # character by character: no final sigma
        ("한", unicodedata.normalize("NFD", "한")),
        ("कि", "कि"),  # the vowel sign has width, and stays
        ("a中b", "a 中 b"),
        ("a\u00a0b\u2003c", "a b c"),
        ("a\x00b\x1fc\u200bd\ufffde", "abcde"),
        ("a\tb\nc", "a b c"),
        ("x▁y", f"x{UNKNOWN}y"),
    ],
)
def test_uncased(text, expected):
    assert uncased(text).replace("\t", " ").replace("\n", " ") == expected


@pytest.mark.parametrize("text", ["Ångström", "Hello"])
def test_cased_keeps_case_and_accents(text):
    assert cased(text) == text


def test_only_words_over_the_limit_become_unknown():
    fits, over = "x" * MAX_WORD_CHARS, "x" * (MAX_WORD_CHARS + 1)
    assert uncased(fits) == fits
    assert uncased(over) == UNKNOWN
    assert uncased(f"ab {over}, {fits}-{over}.") == f"ab {UNKNOWN}, {fits}-{UNKNOWN}."


def test_a_lone_surrogate_is_left_for_the_tokenizer_to_refuse():
    assert uncased("é\ud800") == "e\ud800"

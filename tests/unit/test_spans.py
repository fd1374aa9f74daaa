import time
import unicodedata

import pytest

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.spans import TextAligner, character_map, token_spans
from embellama.tokenization import Tokenizer
from embellama.wordpiece import WordPieceNormalizer


def same(text):
    return text


def spans(text, pieces, kind="gpt2", normalizer=same):
    """Align pieces, of which None is the unknown token; WordPiece takes that for a word."""
    is_wordpiece = isinstance(normalizer, WordPieceNormalizer)
    aligner = TextAligner(text, character_map(kind, normalizer), unknown_is_a_word=is_wordpiece)
    data = [b"" if piece is None else piece.encode() for piece in pieces]
    return token_spans(data, [piece is None for piece in pieces], aligner)


def words(text, pieces, **options):
    return [span and text[slice(*span)] for span in spans(text, pieces, **options)]


UNCASED = {"kind": "bert", "normalizer": WordPieceNormalizer()}
NFC = {"normalizer": lambda text: unicodedata.normalize("NFC", text)}
UNIGRAM = {"kind": "t5"}
SPM = {"kind": "llama"}


@pytest.mark.parametrize(
    ("text", "pieces", "expected", "options"),
    [
        ("Ab, c", [" a", "b", " ,", " c"], ["A", "b", ",", "c"], UNCASED),
        ("Ångström", [" ang", "strom"], ["Ång", "ström"], UNCASED),
        ("中文", [" 中", " 文"], ["中", "文"], UNCASED),
        ("a\x00b", [" ab"], ["a\x00b"], UNCASED),
        ("한", [" ᄒ", "ᅡᆫ"], ["한", "한"], UNCASED),
        ("a ☃b c", [" a", None, " c"], ["a", "☃b", "c"], UNCASED),
        ("☃☃,☃ ☃", [None, " ,", None, None], ["☃☃", ",", "☃", "☃"], UNCASED),
        ("a☃, b", [None, " ,", " b"], ["a☃", ",", "b"], UNCASED),
        ("a\n\nb", ["a", "\n", "\n", "b"], ["a", "\n", "\n", "b"], {}),
        ("a  b", ["a", " ", " b"], ["a", " ", "b"], {}),
        ("e\u0301 e", ["é", " e"], ["e\u0301", "e"], NFC),
        ("e\u0334\u0301e", ["é", "\u0334", "e"], ["e\u0334\u0301"] * 2 + ["e"], NFC),
        ("q\u0307q", ["q", "\u0307", "q"], ["q", "\u0307", "q"], NFC),
        ("½ ﬁ", [" 1", "⁄", "2", " ", "fi"], ["½", "½", "½", " ", "ﬁ"], UNIGRAM),
        ("a\u200bb", [" a", " b"], ["a", "b"], UNIGRAM),
        ("e\u0301 e", [" é", " e"], ["e\u0301", "e"], UNIGRAM),
        ("🙂 a b", [" ", None, " a", " b"], [None, None, "a", "b"], UNIGRAM),
        ("a▁b", ["a", " b"], ["a", "b"], SPM),
    ],
)
def test_each_token_has_its_characters(text, pieces, expected, options):
    assert words(text, pieces, **options) == expected


def test_a_word_in_front_of_which_is_a_mark_only_has_no_span_for_it():
    assert spans("ab", [" ", "ab"], kind="llama") == [None, (0, 2)]


def test_bytes_of_one_character_share_it():
    aligner = TextAligner("a🙂b", same, unknown_is_a_word=False)
    pieces = [b"a\xf0", b"\x9f", b"\x99\x82b"]
    assert token_spans(pieces, [False] * 3, aligner) == [(0, 2), (1, 2), (1, 3)]


@pytest.mark.parametrize(
    ("text", "pieces", "expected", "options"),
    [
        # what is not found ends it: an equal piece further on is another one's
        ("x e", ["y", " e"], [None, None], {}),
        ("foo½bar foo", [" foo½bar", " foo"], [None, None], UNIGRAM),
        # after an unknown token, characters that the map changes may be part of it
        ("㎭ a", [None, " a"], [None, None], UNIGRAM),
        ("🯱 1", [None, " 1"], [None, "1"], UNIGRAM),
        ("½2", [" 1", None, "2", "2"], ["½", None, None, None], UNIGRAM),
        ("ç\x9bt t", ["ç", None, "t", " t"], ["ç", None, None, None], UNIGRAM),
        ("a", ["a", "b"], ["a", None], {}),
        ("", ["a"], [None], {}),
    ],
)
def test_what_cannot_be_told_is_none_and_never_another_place(text, pieces, expected, options):
    assert words(text, pieces, **options) == expected


def test_special_tokens_have_none_and_disturb_nothing():
    assert words("a b", ["", " a", "", " b", ""], **UNCASED) == [None, "a", None, "b", None]


@pytest.mark.parametrize("text", ["é", "\u0301", "e\u0301", "\u1100\u1161\u11a8", "ﬁ\u0307½", ""])
def test_the_map_of_parts_is_the_map_of_the_whole(text):
    """Together the parts are what the vocabulary sees."""
    mapping = character_map("gpt2", NFC["normalizer"])
    aligner = TextAligner(text, mapping, unknown_is_a_word=False)
    assert aligner._data.decode() == mapping(text)


@pytest.fixture(scope="module")
def tokenizer(tiny_path):
    metadata = read_metadata(tiny_path)
    model = LlamaBackend().load(metadata, ModelConfig(), "mean")
    yield Tokenizer(model.vocabulary, metadata)
    model.close()


def test_through_a_vocabulary(tokenizer):
    text = "AB ☃é, c"
    ids = tokenizer.encode(text)
    found = [span and text[slice(*span)] for span in tokenizer.spans(text, ids)]
    assert ids.tolist() == [2, 6, 7, 1, 1, 8, 3]
    assert found == [None, "A", "B", "☃é", ",", "c", None]


def test_without_special_tokens(tokenizer):
    ids = tokenizer.encode("a c", add_special=False)
    assert tokenizer.spans("a c", ids) == [(0, 1), (2, 3)]


def test_many_unknown_words_take_time_in_proportion(tokenizer):
    def seconds(count):
        text = "☃ " * count
        ids = tokenizer.encode(text, add_special=False)
        start = time.perf_counter()
        found = tokenizer.spans(text, ids)
        taken = time.perf_counter() - start
        assert found == [(2 * n, 2 * n + 1) for n in range(count)]
        return taken

    few = min(seconds(1_000) for _ in range(5))
    assert min(seconds(32_000) for _ in range(2)) < 100 * few  # squared, it would be 1,000

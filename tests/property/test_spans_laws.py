"""Spans of tokens against the tokenizers package: the same, or None, and never another place.

What is the same in other words: the package counts the space before a word to the word, gives a
composed letter the place of its base without the marks, and for a token of white space alone names
another space of the same run.
"""

import base64
import unicodedata

import pytest
from gguf import GGUFReader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Peer

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.tokenization import Tokenizer
from tests.architectures import gemma_embedding, qwen3, xlm_roberta
from tests.architectures.trained_vocabulary import qwen_pieces, trained, xlm_roberta_pieces
from tests.integration.test_token_ids import LONG_WORDS, SCRIPTS
from tests.reference_texts import reference_texts

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u200b\u200e\u200f\u2028\u2029\u3000\ufeff\ufffd▁"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Source: ``pre_tokenizer`` in the tokenizer.json of Qwen3-Embedding."""


def wordpiece_peer(path):
    vocabulary = {}
    for token_id, token in enumerate(GGUFReader(path).fields["tokenizer.ggml.tokens"].contents()):
        special = token.startswith("[") and token.endswith("]")
        vocabulary[token if special else token[1:] if token[0] == "▁" else f"##{token}"] = token_id
    return BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)


def bytes_peer(path):
    pieces = {piece: number for number, piece in enumerate(qwen_pieces())}
    peer = Peer(models.BPE(pieces, [tuple(pair) for pair in trained("bytes")["merges"]]))
    peer.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([words, by_byte])
    return peer


def unigram_peer(path):
    peer = Peer(models.Unigram(xlm_roberta_pieces(), unk_id=3, byte_fallback=False))
    table = normalizers.Precompiled(base64.b64decode(trained("unigram")["charsmap"]))
    peer.normalizer = normalizers.Sequence([table, normalizers.Replace(Regex(" {2,}"), " ")])
    peer.pre_tokenizer = pre_tokenizers.Metaspace()
    return peer


def spm_peer(path):
    vocabulary = trained("spm")
    pieces = vocabulary["pieces"]
    known = set(pieces)
    rows = zip(pieces, vocabulary["scores"], vocabulary["types"], strict=True)
    ranked = sorted((-score, n, piece) for n, (piece, score, kind) in enumerate(rows) if kind == 1)
    merges = [
        (piece[:cut], piece[cut:])
        for _, _, piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]
    ids = {piece: number for number, piece in enumerate(pieces)}
    peer = Peer(models.BPE(ids, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    peer.normalizer = normalizers.Replace(" ", "▁")
    return peer


class Pair:
    """Our tokenizer and the package's, for one vocabulary."""

    def __init__(self, path, peer):
        metadata = read_metadata(path)
        self.model = LlamaBackend().load(metadata, ModelConfig(), "mean")
        self.ours = Tokenizer(self.model.vocabulary, metadata)
        self.peer = peer(path)

    def spans(self, text):
        """Return (piece, our span, its span) of each token; None where the ids differ."""
        ids = self.ours.encode(text, add_special=False)
        found = self.peer.encode(text, add_special_tokens=False)
        if ids.tolist() != found.ids:
            return None
        pieces = self.model.vocabulary.pieces(ids)
        return list(zip(pieces, self.ours.spans(text, ids), found.offsets, strict=True))


@pytest.fixture(scope="module")
def wordpiece(minilm_path):
    yield (pair := Pair(minilm_path, wordpiece_peer))
    pair.model.close()


@pytest.fixture(scope="module")
def by_byte(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bytes")
    yield (pair := Pair(qwen3.MODELS[0].write(folder / "m.gguf"), bytes_peer))
    pair.model.close()


@pytest.fixture(scope="module")
def unigram(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unigram")
    yield (pair := Pair(xlm_roberta.MODELS[0].write(folder / "m.gguf"), unigram_peer))
    pair.model.close()


@pytest.fixture(scope="module")
def spm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spm")
    yield (pair := Pair(gemma_embedding.MODELS[0].write(folder / "m.gguf"), spm_peer))
    pair.model.close()


def check(text, rows, *, exact=False):
    """Refuse a span at another place than the package's; return how many are None."""
    n_none, last = 0, (0, 0)
    for piece, ours, (first, stop) in rows:
        if ours is None:
            n_none += 1
            continue
        assert last[0] <= ours[0] < ours[1] <= len(text), (piece, ours)
        assert last[1] <= ours[1], (piece, ours)
        last = ours
        if exact:
            assert ours == (first, stop), (piece, text[first:stop])
        elif not piece.strip(b" "):
            assert not text[ours[0] : ours[1]].strip(SPACES), (piece, ours)
        else:
            n_spaces = len(text[first:stop]) - len(text[first:stop].lstrip(SPACES))
            start = min(first + n_spaces, max(ours[0], first))
            marks = text[stop : ours[1]]
            assert all(unicodedata.combining(mark) for mark in marks), (piece, ours, start, stop)
            assert ours == (start, stop + len(marks)), (piece, ours, (start, stop))
    return n_none


TEXTS = [*reference_texts(), *SCRIPTS]


def test_wordpiece_is_exact_and_complete(wordpiece):
    """Unknown words included: they are the word that the package names."""
    for text in [*TEXTS, *LONG_WORDS]:
        assert check(text, wordpiece.spans(text), exact=True) == 0


@pytest.mark.parametrize("kind", ["by_byte", "spm"])
def test_vocabularies_without_an_unknown_token_are_complete(kind, request):
    pair = request.getfixturevalue(kind)
    for text in TEXTS:
        assert check(text, pair.spans(text)) == 0


def test_unigram_is_complete_up_to_what_is_unknown(unigram):
    rows = {text: unigram.spans(text) for text in TEXTS}
    assert sum(row is None for row in rows.values()) <= 2
    n_none = sum(check(text, row) for text, row in rows.items() if row)
    n_tokens = sum(len(row) for row in rows.values() if row)
    assert n_none < 0.01 * n_tokens
    plain = "Water boils at a lower temperature on a mountain than at the sea."
    assert check(plain, rows[plain]) <= 1  # the mark of the first word, if a token by itself


letters = st.sampled_from(
    "aeiounrst" * 4
    + "     \t\n"
    + "AÉéßıİĐ½①ﬁ²ŉ"
    + "\u0301\u0307\u0323\u0327\u0334\u030b"  # marks, some of which change places
    + "деёй한글\u1100\u1161\u11a8中東ｶﾞﾊ\u09c7\u09be"
    + "🙂☃\u200d\u200b\xad\ufeff\x07\x85\x9b\u2028▁"
    + ".,!-'#0123"
)
mixtures = st.text(letters, max_size=40)


@given(mixtures)
@settings(max_examples=400, deadline=None)
def test_wordpiece_in_mixtures(wordpiece, text):
    rows = wordpiece.spans(text)
    if rows is not None:
        assert check(text, rows, exact=True) == 0


@given(mixtures)
@example("e\u0301 e")
@example("\u09c7\u09be \u09c7")
@example("e\u0334\u0301 e é")
@settings(max_examples=400, deadline=None)
def test_bytes_in_mixtures(by_byte, text):
    rows = by_byte.spans(text)
    if rows is not None:
        assert check_bytes(text, rows) == 0


def check_bytes(text, rows):
    """Refuse a span whose characters, composed, do not hold the piece; return how many are None.

    The package's own spans are of no use where marks join a letter that is not just before them.
    """
    n_none = check(text, rows) if unicodedata.is_normalized("NFC", text) else 0
    for piece, span, _ in rows:
        if span is None:
            n_none += 1
        else:
            held = unicodedata.normalize("NFC", text[span[0] : span[1]]).encode()
            assert piece.strip() in held, (piece, span)
    whole = b"".join(piece for piece, _, _ in rows)
    assert whole == unicodedata.normalize("NFC", text).encode()
    return n_none


@given(mixtures)
@settings(max_examples=400, deadline=None)
def test_spm_in_mixtures(spm, text):
    rows = spm.spans(text)
    if rows is not None:
        assert check(text, rows) == 0


@given(mixtures)
@example("ç\x9bt t")
@example("☃½b b")
@example("½2")
@example("🙂 a e\u0301 e")
@settings(max_examples=400, deadline=None)
def test_unigram_in_mixtures(unigram, text):
    rows = unigram.spans(text)
    if rows is None:
        return
    for piece, span, _ in rows:
        if span is not None:
            held = unigram.peer.normalizer.normalize_str(text[span[0] : span[1]]).encode()
            assert piece.strip() in held, (piece, span)
    # where characters are dropped, or marks are at work, the package's spans slip
    each = "".join(unicodedata.normalize("NFKC", char) for char in text)
    simple = unicodedata.is_normalized("NFC", each) and not any(map(unicodedata.combining, each))
    if simple and "\x07" not in text:
        check(text, rows)

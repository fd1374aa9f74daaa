"""WordPiece ids against the tokenizers package, character by character and in running text.

What still differs, all of it listed here: characters that Unicode has made punctuation, marks or
format controls since version 8, which the tokenizers package takes for letters; and special tokens
written inside a text, which are text here.
"""

import random
import unicodedata

import pytest
from gguf import GGUFReader
from tokenizers import BertWordPieceTokenizer

SCRIPTS = [
    "안녕하세요 세계, 한국어 문장입니다.",
    "नमस्ते दुनिया, कृपया यहाँ क्लिक करें",
    "தமிழ் மொழி বাংলা ਪੰਜਾਬੀ ગુજરાતી తెలుగు ಕನ್ನಡ മലയാളം සිංහල",
    "日本語のテキストです。カタカナ ｶﾀｶﾅ が゙",
    "中文文本，繁體字與简体字。㐀𠀀",
    "ภาษาไทย ລາວ မြန်မာ ខ្មែរ བོད་ཡིག",
    "العربية مَرْحَبًا فارسی اردو",
    "עברית שָׁלוֹם ייִדיש",
    "Ελληνικά ΟΔΥΣΣΕΥΣ ΣΑΣ",
    "Русский Український Ёжик й",
    "Հայերեն ქართული አማርኛ ᏣᎳᎩ",
    "Türkçe İstanbul ıI straße ẞ ﬁ ŉ ǅ",
    "Tiếng Việt Ångström Å résumé",
    "１２３ ＡＢＣ ① ² ½ ℃ ㎏ 𝒜𝓫𝕮",
    "👨‍👩‍👧‍👦 🇩🇪 👍🏽 ☂️ →",
    "tab\tnew\nline\rcarriage",
    "\x00 nul \x01\x02 controls \x0b vt \x0c ff \x1f us \x7f del \x85 nel",
    "zero\u200bwidth\u200djoin\ufeffbom soft\u00adhyphen\u2060 \ufffd replaced",
    "no\u00a0break thin\u2009space ideographic\u3000space line\u2028para\u2029",
    "##ing ##s ▁the a▁the under_score",
    "private \ue000 use and unassigned \u0378",
]
LONG_WORDS = ["x" * 100, "x" * 101, "x" * 150 + "-y", "é" * 101, "a-" * 150, "▁" * 120, "中" * 150]


@pytest.fixture(scope="module")
def peer(minilm_path):
    field = GGUFReader(minilm_path).fields["tokenizer.ggml.tokens"]
    vocabulary = {}
    for token_id, token in enumerate(field.contents()):
        special = token.startswith("[") and token.endswith("]")
        plain = token if special else token[1:] if token.startswith("▁") else f"##{token}"
        vocabulary[plain] = token_id
    return BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)


@pytest.mark.parametrize("text", SCRIPTS, ids=lambda text: ascii(text[:12]))
def test_scripts_and_controls(engine, peer, text):
    assert engine.tokenize("minilm", text).tolist() == peer.encode(text).ids


@pytest.mark.parametrize("text", LONG_WORDS, ids=lambda text: f"{text[:2]!a}x{len(text)}")
def test_very_long_words(engine, peer, text):
    assert engine.tokenize("minilm", text).tolist() == peer.encode(text).ids


def test_every_character_but_the_listed(engine, peer):
    codes = [*range(0xD800), *range(0xE000, 0x1FBFF), *range(0x20000, 0xE0200, 97)]
    texts = [f"a{chr(code)}b {chr(code)}" for code in codes]
    ours = [engine.tokenize("minilm", text).tolist() for text in texts]
    differing = [
        chr(code)
        for code, text, ids in zip(codes, texts, ours, strict=True)
        if ids != peer.encode(text).ids
    ]
    newer = {"Po", "Ps", "Pe", "Pd", "Mn", "Cf", "Cn"}
    moved = {"\u166d", "\u1734"}  # changed their category since Unicode 8
    odd = [c for c in differing if unicodedata.category(c) not in newer and c not in moved]
    assert not odd
    assert len(differing) < 600
    # nothing that existed in 2015 in a living script: the first is of Unicode 11
    assert min(differing) >= "\u061d"


def test_random_mixtures(engine, peer):
    chooser = random.Random(3)
    letters = [chr(code) for code in (*range(0x20, 0x530), *range(0xAC00, 0xAC80), 0x4E2D, 0x1F600)]
    known = [c for c in letters if unicodedata.category(c) != "Cn"]
    for _ in range(2000):
        text = "".join(chooser.choices([*known, *" " * 200], k=chooser.randint(1, 80)))
        assert engine.tokenize("minilm", text).tolist() == peer.encode(text).ids


def test_special_tokens_inside_a_text_are_text(engine, peer):
    ids = engine.tokenize("minilm", "[CLS] hello [SEP]").tolist()
    assert ids.count(101) == ids.count(102) == 1
    assert ids != peer.encode("[CLS] hello [SEP]").ids


def test_special_tokens_can_be_left_out(engine):
    ids = engine.tokenize("minilm", "hello", add_special_tokens=False)
    assert ids.tolist() == [7592]
    assert engine.count_tokens("minilm", "hello") == 3

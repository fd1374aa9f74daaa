from pathlib import Path

import pytest

from embellama.errors import ConversionError
from embellama.hub.bert_vocab import read_bert_vocab
from tests.tiny_bert import SPELT, WORDS, tokenizer_json, write_json

CONTROL, USER_DEFINED, UNUSED, NORMAL = 3, 4, 5, 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "tokenizer.json", tokenizer_json())
    return tmp_path


def only_vocab_txt(folder: Path, words: list[str], end: str = "\n") -> Path:
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.txt").write_bytes("".join(word + end for word in words).encode())
    return folder


def test_both_files_give_the_same(folder):
    full = read_bert_vocab(folder, 11)
    plain = read_bert_vocab(only_vocab_txt(folder, WORDS), 11)
    assert full == plain
    assert full.tokens == SPELT
    assert full.token_types == [CONTROL] * 5 + [NORMAL] * 6
    assert full.special_ids == {"bos": 2, "eos": 3, "unk": 1, "sep": 3, "pad": 0, "mask": 4}
    assert (full.lowercase, full.strip_accents, full.warnings) == (True, None, ())


def test_line_separators_of_unicode_are_tokens(folder):
    words = [*WORDS, "\u2028", "x\x85", "\x1c"]
    assert read_bert_vocab(only_vocab_txt(folder, words), 14).tokens[11:] == [
        "▁\u2028",
        "▁x\x85",
        "▁\x1c",
    ]


def test_windows_line_ends(folder):
    assert read_bert_vocab(only_vocab_txt(folder, WORDS, "\r\n"), 11).tokens == SPELT


def test_ids_without_a_token_get_placeholders(folder):
    vocab = read_bert_vocab(folder, 13)
    assert vocab.tokens[11:] == ["▁[PAD11]", "▁[PAD12]"]
    assert vocab.token_types[11:] == [UNUSED, UNUSED]


def test_added_tokens(folder):
    full = tokenizer_json()
    full["added_tokens"].append({"id": 11, "content": "word", "special": False})
    write_json(folder / "tokenizer.json", full)
    vocab = read_bert_vocab(folder, 12)
    assert (vocab.tokens[11], vocab.token_types[11]) == ("▁word", USER_DEFINED)
    only_vocab_txt(folder, WORDS)
    write_json(folder / "added_tokens.json", {"word": 11})
    assert read_bert_vocab(folder, 12).tokens[11] == "▁word"


def test_special_tokens_of_other_names(folder):
    words = ["<pad>", "<unk>", "<s>", "</s>", *WORDS[4:]]
    only_vocab_txt(folder, words)
    write_json(folder / "special_tokens_map.json", {"cls_token": "<s>", "sep_token": "wrong"})
    write_json(
        folder / "tokenizer_config.json",
        {"sep_token": {"content": "</s>"}, "unk_token": "<unk>", "pad_token": "<pad>"},
    )
    vocab = read_bert_vocab(folder, 11)
    assert vocab.tokens[:4] == words[:4]
    assert (vocab.special_ids["bos"], vocab.special_ids["eos"]) == (2, 3)


@pytest.mark.parametrize(
    ("normalizer", "lowercase", "strip_accents"),
    [
        ({"type": "BertNormalizer", "lowercase": False, "strip_accents": True}, False, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]}, True, None),
        ({"type": "Sequence", "normalizers": [{"type": "StripAccents"}]}, False, True),
        (None, False, None),
    ],
)
def test_normalizers(folder, normalizer, lowercase, strip_accents):
    write_json(folder / "tokenizer.json", tokenizer_json() | {"normalizer": normalizer})
    vocab = read_bert_vocab(folder, 11)
    assert (vocab.lowercase, vocab.strip_accents) == (lowercase, strip_accents)


def test_a_cased_vocab_txt(folder):
    only_vocab_txt(folder, WORDS)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "strip_accents": False})
    vocab = read_bert_vocab(folder, 11)
    assert (vocab.lowercase, vocab.strip_accents) == (False, False)


def test_a_tokenizer_that_keeps_chinese_words_warns(folder):
    only_vocab_txt(folder, WORDS)
    write_json(folder / "tokenizer_config.json", {"tokenize_chinese_chars": False})
    assert "Chinese" in read_bert_vocab(folder, 11).warnings[0]


def without_special(role: str) -> dict:
    full = tokenizer_json()
    del full["model"]["vocab"][role]
    full["added_tokens"] = [entry for entry in full["added_tokens"] if entry["content"] != role]
    return full


def with_model(**changes: object) -> dict:
    full = tokenizer_json()
    full["model"] |= changes
    return full


@pytest.mark.parametrize(
    ("full", "message"),
    [
        (without_special("[SEP]"), r"has no \[SEP\]"),
        (with_model(type="BPE"), "holds a BPE vocabulary"),
        (with_model(vocab=[]), "BERT's is WordPiece"),
        (with_model(continuing_subword_prefix="@@"), "by '@@'"),
        (with_model(vocab={**tokenizer_json()["model"]["vocab"], "##▁a": 11}), "'▁a' twice"),
    ],
)
def test_vocabularies_that_llama_cpp_cannot_use_are_refused(folder, full, message):
    write_json(folder / "tokenizer.json", full)
    with pytest.raises(ConversionError, match=message):
        read_bert_vocab(folder, 12 if "twice" in message else 11)


def test_no_vocabulary_at_all(tmp_path):
    with pytest.raises(ConversionError, match=r"neither tokenizer\.json nor vocab\.txt"):
        read_bert_vocab(tmp_path, 11)


def test_a_vocab_txt_that_is_no_text(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe[PAD]")
    with pytest.raises(ConversionError, match="cannot be read"):
        read_bert_vocab(tmp_path, 11)

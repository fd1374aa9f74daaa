"""Train the small vocabularies of the architecture tests; needs sentencepiece and tokenizers.

    python tests/data/make_vocabularies.py

Writes three files into architectures/, from the sentences of tests/reference_texts.py:

- vocabulary_unigram.json: a Unigram model as XLM-RoBERTa and T5 have, with its normalizer.
- vocabulary_spm.json: byte-pair merges with scores and byte tokens, as Gemma has.
- vocabulary_bytes.json: byte-level pairs with the splitting of Qwen.

Made with sentencepiece 0.2.3 and tokenizers 0.23.3. Scores are float32, which JSON keeps exactly.
"""

import base64
import json
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.reference_texts import SENTENCES

TARGET = Path(__file__).with_name("architectures")
LINES = [text.translate({0: None}).replace("\n", " ") for text in SENTENCES if len(text) < 500]

QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Source: PRETOKENIZE_REGEX in transformers' tokenization_qwen2.py."""

CHANGED = (
    *range(0x00A0, 0x0180),  # Latin with accents
    *range(0x2000, 0x2070),  # spaces and punctuation
    *range(0x2100, 0x2190),  # letter-like signs, fractions, Roman numerals
    *range(0x3300, 0x3400),  # squared abbreviations
    *range(0xFB00, 0xFB07),  # ligatures
    *range(0xFF01, 0xFF5F),  # full-width ASCII
)
"""Characters that get a normalizer rule: some of every kind, so that the table stays small."""

DROPPED = (*range(0x01, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0x8F, 0x9F)
SPACES = (
    *(0x09, 0x0A, 0x0C, 0x0D, 0x61C, 0x1680, 0x200B, 0x200C, 0x200E, 0x200F),
    *(0x2028, 0x2029, 0x2581, 0x3000, 0xFEFF, 0xFFFD),
)
"""What nmt_nfkc does beyond NFKC. Source: sentencepiece 0.2.3's own normalization of each."""


def normalizer_rules() -> Iterator[str]:
    """Yield NFKC for `CHANGED`, and what SentencePiece's nmt_nfkc does with controls and spaces.

    Source: sentencepiece, doc/normalization.md (the format: code points, tab, code points).
    """
    rules = dict.fromkeys(map(chr, DROPPED), "")
    rules |= dict.fromkeys(map(chr, SPACES), " ")
    for character in map(chr, CHANGED):
        whole = unicodedata.normalize("NFKC", character)
        taken_apart = unicodedata.normalize("NFD", character)
        if whole != character:
            rules.setdefault(character, whole)
        if len(taken_apart) > 1 and unicodedata.normalize("NFC", taken_apart) == character:
            rules[taken_apart] = character
    for source, target in rules.items():
        if source != target:
            yield "\t".join(" ".join(f"{ord(c):X}" for c in text) for text in (source, target))


def train(folder: Path, **options: Any) -> Any:
    prefix = folder / "model"
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES),
        model_prefix=str(prefix),
        minloglevel=2,
        num_threads=1,
        **options,
    )
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(prefix.with_suffix(".model").read_bytes())
    return model


def unigram(folder: Path) -> dict[str, Any]:
    rules = folder / "rules.tsv"
    rules.write_text("\n".join(normalizer_rules()) + "\n", encoding="utf-8")
    model = train(
        folder,
        model_type="unigram",
        vocab_size=400,
        character_coverage=0.98,
        normalization_rule_tsv=str(rules),
    )
    return {
        # the first three are special, and every model has its own
        "pieces": [piece.piece for piece in model.pieces][3:],
        "scores": [piece.score for piece in model.pieces][3:],
        "charsmap": base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode(),
    }


def spm(folder: Path) -> dict[str, Any]:
    model = train(
        folder,
        model_type="bpe",
        vocab_size=600,
        character_coverage=0.98,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
    )
    return {
        "pieces": [piece.piece for piece in model.pieces],
        "scores": [piece.score for piece in model.pieces],
        "types": [piece.type for piece in model.pieces],  # the numbers GGUF has, too
    }


def byte_pairs() -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=450,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(LINES, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {"pieces": vocabulary, "merges": model["merges"]}


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = {"unigram": unigram(Path(folder)), "spm": spm(Path(folder)), "bytes": byte_pairs()}
    for name, vocabulary in made.items():
        target = TARGET / f"vocabulary_{name}.json"
        target.write_text(json.dumps(vocabulary, ensure_ascii=True), encoding="utf-8")
        print(f"{len(vocabulary['pieces'])} pieces -> {target}")

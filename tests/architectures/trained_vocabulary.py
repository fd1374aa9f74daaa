"""Vocabularies trained on our own sentences, in the forms SentencePiece and byte-level models need.

``tests/data/make_vocabularies.py`` made them.
"""

import base64
import json
from functools import cache
from typing import Any, Literal

from gguf import GGUFWriter, TokenType

from tests.architectures.common import REFERENCES

XLM_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Before the pieces; ``<mask>`` comes after them."""

T5_SPECIAL = ("<pad>", "</s>", "<unk>")
N_T5_UNUSED = 9
"""Rows of the embedding table without a piece, as real T5 files have."""

QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""After the pieces; a text ends with the first."""

Scored = list[tuple[str, float]]


@cache
def trained(kind: Literal["unigram", "spm", "bytes"]) -> dict[str, Any]:
    """Read a vocabulary; the caller leaves it as it is."""
    text = (REFERENCES / f"vocabulary_{kind}.json").read_text(encoding="utf-8")
    vocabulary: dict[str, Any] = json.loads(text)
    return vocabulary


def unigram_pieces() -> Scored:
    """List the Unigram pieces with their logarithmic probabilities, without special ones."""
    vocabulary = trained("unigram")
    return list(zip(vocabulary["pieces"], vocabulary["scores"], strict=True))


def xlm_roberta_pieces() -> Scored:
    """List XLM-RoBERTa's vocabulary in the order that transformers gives it."""
    special = [(piece, 0.0) for piece in XLM_ROBERTA_SPECIAL]
    return [*special, *unigram_pieces(), ("<mask>", 0.0)]


def t5_pieces() -> Scored:
    """List T5's vocabulary as it is in its spiece.model."""
    return [*((piece, 0.0) for piece in T5_SPECIAL), *unigram_pieces()]


def qwen_pieces() -> list[str]:
    """List the byte-level vocabulary of a Qwen."""
    return [*trained("bytes")["pieces"], *QWEN_SPECIAL]


def add_xlm_roberta(writer: GGUFWriter) -> None:
    """Write XLM-RoBERTa's vocabulary as ``_xlmroberta_set_vocab`` of llama.cpp's converter does."""
    pieces = xlm_roberta_pieces()
    types = [TokenType.NORMAL] * len(pieces)
    types[: len(XLM_ROBERTA_SPECIAL)] = [TokenType.CONTROL] * 3 + [TokenType.UNKNOWN]
    types[-1] = TokenType.CONTROL
    _add_unigram(writer, pieces, types)
    writer.add_token_type_count(1)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_sep_token_id(2)
    writer.add_pad_token_id(1)
    writer.add_mask_token_id(len(pieces) - 1)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def add_t5(writer: GGUFWriter) -> None:
    """Write T5's vocabulary as ``T5EncoderModel.set_vocab`` of llama.cpp's converter does."""
    pieces = t5_pieces()
    types = [TokenType.CONTROL, TokenType.CONTROL, TokenType.UNKNOWN]
    types += [TokenType.NORMAL] * (len(pieces) - len(types))
    unused = [(f"[PAD{number}]", -10000.0) for number in range(N_T5_UNUSED)]
    _add_unigram(writer, [*pieces, *unused], [*types, *[TokenType.UNUSED] * N_T5_UNUSED])
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)


def _add_unigram(writer: GGUFWriter, pieces: Scored, types: list[TokenType]) -> None:
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([score for _, score in pieces])
    writer.add_token_types(types)
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(base64.b64decode(trained("unigram")["charsmap"]))


def add_gemma(writer: GGUFWriter) -> None:
    """Write Gemma's vocabulary as ``Gemma3Model.set_vocab`` of llama.cpp's converter does."""
    vocabulary = trained("spm")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary["pieces"])
    writer.add_token_scores(vocabulary["scores"])
    writer.add_token_types(vocabulary["types"])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_space_prefix(False)


def add_qwen(writer: GGUFWriter) -> None:
    """Write Qwen's vocabulary as ``_set_vocab_gpt2`` of llama.cpp's converter does."""
    pieces = qwen_pieces()
    types = [TokenType.NORMAL] * (len(pieces) - len(QWEN_SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(pieces)
    writer.add_token_types([*types, *[TokenType.CONTROL] * len(QWEN_SPECIAL)])
    writer.add_token_merges([" ".join(pair) for pair in trained("bytes")["merges"]])
    writer.add_eos_token_id(pieces.index("<|endoftext|>"))
    writer.add_pad_token_id(pieces.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(True)

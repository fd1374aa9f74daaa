"""Cross-encoders of a few hundred kilobytes: what transformers and a GGUF are both made from.

`RandomState` gives the same numbers with every NumPy, so that stored scores stay valid.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, PoolingType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray

from tests.architectures import qwen3

Weights = Mapping[str, NDArray[np.float32]]
Change = Callable[[GGUFWriter], None]

N_EMBD, N_FF, N_LAYER, N_HEAD, N_CTX = 64, 96, 2, 4, 48

_WORDS = (
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + list("abcdefghijklmnopqrstuvwxyz?.,")
    + ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz"]
    + ["what", "is", "a", "panda", "the", "bear", "eats", "bamboo", "in", "china", "how", "cat"]
)
WORDS = list(dict.fromkeys(_WORDS))
"""A WordPiece vocabulary."""

PIECES = (
    [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    + [("▁" + word, -3.0) for word in ("what", "is", "a", "panda", "the", "bear", "eats")]
    + [("▁", -4.0), ("bam", -5.0), ("boo", -5.0)]
    + [(letter, -8.0) for letter in "abcdefghijklmnopqrstuvwxyz?.,"]
)
"""A Unigram vocabulary with its scores, in XLM-RoBERTa's order."""

PAD_OFFSET = 2
"""Rows of RoBERTa's position table that no token uses. Source: padding_idx + 1 in transformers."""

QUERY = "what is a panda?"
DOCUMENTS = (
    "the panda is a bear.",
    "a cat eats.",
    "the panda eats bamboo in china.",
    "hi",
    "how is the bear, the cat, the panda?",
    "the panda is a bear.",
)
LONG_DOCUMENT = "the panda eats bamboo, " * 20

TENSORS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
"""Parts of a layer: transformers' names and GGUF's."""


QUIET = 0.02
"""How loud the feed-forward parts are, so that something else than llama.cpp's GELU is measured.

It is a table of half floats on a CPU, off by up to 0.001 in a score where they are as loud as 1.
Source: ``GGML_GELU_FP16`` in ggml's vec.h; test_rerank.py measures it.
"""


def make_weights(
    *,
    n_vocab: int,
    n_positions: int,
    n_types: int,
    head: Mapping[str, str],
    loudness: float = QUIET,
    width: int = N_EMBD,
) -> Any:
    """Make float32 tensors under transformers' names; ``head`` names dense and projection."""
    numbers = np.random.RandomState(11)

    def tensor(scale: float, *shape: int) -> NDArray[np.float32]:
        return numbers.normal(0, scale, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": tensor(1.0, n_vocab, width),
        "embeddings.position_embeddings.weight": tensor(0.3, n_positions, width),
        "embeddings.token_type_embeddings.weight": tensor(1.0, n_types, width),
        "embeddings.LayerNorm.weight": 1 + tensor(0.1, width),
        "embeddings.LayerNorm.bias": tensor(0.1, width),
    }
    for layer in range(N_LAYER):
        for name in TENSORS:
            rows = N_FF if name == "intermediate.dense" else width
            columns = N_FF if name == "output.dense" else width
            norm = name.endswith("LayerNorm")
            scale = columns**-0.5 * (loudness if name == "output.dense" else 1)
            weight = 1 + tensor(0.1, rows) if norm else tensor(scale, rows, columns)
            weights[f"encoder.layer.{layer}.{name}.weight"] = weight
            weights[f"encoder.layer.{layer}.{name}.bias"] = tensor(0.1, rows)
    weights[f"{head['dense']}.weight"] = tensor(width**-0.5, width, width)
    weights[f"{head['dense']}.bias"] = tensor(0.1, width)
    weights[f"{head['out']}.weight"] = tensor(0.3, 1, width)
    weights[f"{head['out']}.bias"] = tensor(0.1, 1)
    return weights


BERT_HEAD = {"dense": "pooler.dense", "out": "classifier"}
ROBERTA_HEAD = {"dense": "classifier.dense", "out": "classifier.out_proj"}


def bert_weights(loudness: float = QUIET, width: int = N_EMBD) -> Any:
    return make_weights(
        n_vocab=len(WORDS),
        n_positions=N_CTX,
        n_types=2,
        head=BERT_HEAD,
        loudness=loudness,
        width=width,
    )


def xlmr_weights() -> Any:
    return make_weights(
        n_vocab=len(PIECES),
        n_positions=N_CTX + PAD_OFFSET,
        n_types=1,
        head=ROBERTA_HEAD,
    )


def _describe(writer: GGUFWriter, weights: Weights) -> None:
    n_types, width = weights["embeddings.token_type_embeddings.weight"].shape
    writer.add_name("tiny cross-encoder")
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(1e-12)
    writer.add_file_type(0)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_classifier_output_labels(["LABEL_0"])
    writer.add_token_type_count(n_types)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)


def _describe_wordpiece(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("bert")
    spelt = [
        word if number < 5 else word.removeprefix("##") if word.startswith("##") else "▁" + word
        for number, word in enumerate(WORDS)
    ]
    writer.add_token_list(spelt)
    writer.add_token_types([TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(WORDS) - 5))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_unk_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_add_sep_token(False)


def _describe_unigram(writer: GGUFWriter) -> None:
    writer.add_tokenizer_model("t5")
    writer.add_token_list([piece for piece, _ in PIECES])
    writer.add_token_scores([score for _, score in PIECES])
    kinds = [TokenType.CONTROL] * 3 + [TokenType.UNKNOWN]
    writer.add_token_types(kinds + [TokenType.NORMAL] * (len(PIECES) - 4))
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_bos_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_sep_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_sep_token(True)


def _add_tensors(
    writer: GGUFWriter,
    weights: Weights,
    head: Mapping[str, str],
    token_type: GGMLQuantizationType,
) -> None:
    names = {
        "embeddings.word_embeddings": "token_embd",
        "embeddings.position_embeddings": "position_embd",
        "embeddings.token_type_embeddings": "token_types",
        "embeddings.LayerNorm": "token_embd_norm",
        head["dense"]: "cls",
        head["out"]: "cls.output",
    }
    for layer in range(N_LAYER):
        for theirs, ours in TENSORS.items():
            names[f"encoder.layer.{layer}.{theirs}"] = f"blk.{layer}.{ours}"
    for name, tensor in weights.items():
        stem, _, kind = name.rpartition(".")
        if stem == "embeddings.word_embeddings":
            rows = quantize(tensor, token_type)
            writer.add_tensor(f"{names[stem]}.{kind}", rows, raw_dtype=token_type)
        else:
            writer.add_tensor(f"{names[stem]}.{kind}", tensor)


def write_cross_encoder(
    path: Path,
    *,
    weights: Weights | None = None,
    token_type: GGMLQuantizationType = GGMLQuantizationType.F32,
    tensors_a_part: int = 0,
    change: Change = lambda writer: None,
) -> Path:
    """Write the BERT one; ``change`` overwrites values before that."""
    weights = weights or bert_weights()
    writer = GGUFWriter(path, "bert", split_max_tensors=tensors_a_part)
    _describe(writer, weights)
    _describe_wordpiece(writer)
    change(writer)
    _add_tensors(writer, weights, BERT_HEAD, token_type)
    return _finish(writer, path)


def write_xlmr_cross_encoder(path: Path, *, change: Change = lambda writer: None) -> Path:
    """Write the XLM-RoBERTa one, its position table without the rows that no token uses."""
    weights = xlmr_weights()
    writer = GGUFWriter(path, "bert")
    _describe(writer, weights)
    _describe_unigram(writer)
    change(writer)
    positions = "embeddings.position_embeddings.weight"
    weights[positions] = weights[positions][PAD_OFFSET:]
    _add_tensors(writer, weights, ROBERTA_HEAD, GGMLQuantizationType.F32)
    return _finish(writer, path)


YES_NO_TEMPLATE = (
    "<|im_start|>system\nyes or no?<|im_end|>\n<|im_start|>user\n<Query>: {query}\n"
    "<Document>: {document}<|im_end|>\n<|im_start|>assistant\n"
)


def yes_no_head() -> Any:
    """Make the rows of "yes" and "no", float32 (2, n_embd)."""
    return np.random.RandomState(12).normal(0, 0.2, (2, qwen3.N_EMBD)).astype(np.float32)


def write_yes_no_reranker(path: Path) -> Path:
    """Write a Qwen3 as llama.cpp's converter makes it of Qwen3-Reranker."""
    (model,) = qwen3.MODELS

    def describe(writer: GGUFWriter) -> None:
        model.describe(writer)
        writer.kv_data[0]["qwen3.pooling_type"].value = int(PoolingType.RANK)
        writer.add_classifier_output_labels(["yes", "no"])
        writer.add_chat_template([{"name": "rerank", "template": YES_NO_TEMPLATE}])

    def tensors() -> Weights:
        return {**model.tensors(), "cls.output.weight": yes_no_head()}

    return replace(model, describe=describe, tensors=tensors).write(path)


def _finish(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

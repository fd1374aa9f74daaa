"""GGUF files of a few kilobytes, written with the gguf package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "b", "▁c"]

Change = Callable[[GGUFWriter], None]


def describe(writer: GGUFWriter) -> None:
    """Add what a BERT of one layer says about itself."""
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(16)
    writer.add_embedding_length(8)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_file_type(1)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3, 3, 1, 1, 1])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_unk_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)


def add_tensors(writer: GGUFWriter) -> None:
    writer.add_tensor("token_embd.weight", np.ones((len(TOKENS), 8), np.float16))
    writer.add_tensor("position_embd.weight", np.ones((16, 8), np.float32))
    writer.add_tensor("token_embd_norm.weight", np.ones(8, np.float32))


def write_gguf(
    path: Path,
    change: Change | None = None,
    *,
    arch: str = "bert",
    tensors: Change = add_tensors,
    split_max_tensors: int = 0,
) -> Path:
    """Write a small model; ``change`` overwrites or removes values before that."""
    writer = GGUFWriter(path, arch, split_max_tensors=split_max_tensors)
    describe(writer)
    if change is not None:
        change(writer)
    tensors(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def without(*keys: str) -> Change:
    """Leave values out."""

    def remove(writer: GGUFWriter) -> None:
        for key in keys:
            del writer.kv_data[0][key]

    return remove


def with_value(key: str, value: object) -> Change:
    """Set a value to another one of its type."""

    def replace(writer: GGUFWriter) -> None:
        writer.kv_data[0][key].value = value

    return replace

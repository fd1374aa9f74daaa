"""A text-generating llama of a few kilobytes: what a user loads by mistake."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

PIECES = ["▁", "a", "b", "c", "▁a", "▁b", "▁c", "▁ab"]
N_EMBD, N_FF, N_LAYER, N_HEAD, N_CTX = 32, 48, 2, 4, 64


def write_decoder(path: Path, *, add_eos: bool = False, tensors_a_part: int = 0) -> Path:
    """Write a llama with a SentencePiece vocabulary and random weights."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    kinds += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(PIECES)
    writer = GGUFWriter(path, "llama", split_max_tensors=tensors_a_part)
    writer.add_name("tiny decoder")
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_CTX)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(N_EMBD // N_HEAD)
    writer.add_file_type(0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([float(len(token)) for token in tokens])
    writer.add_token_types([int(kind) for kind in kinds])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(add_eos)
    generator = np.random.default_rng(4)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, generator.normal(0, 0.2, shape).astype(np.float32))

    add("token_embd.weight", len(tokens), N_EMBD)
    add("output_norm.weight", N_EMBD)
    for layer in range(N_LAYER):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", N_EMBD, N_EMBD)
        for part in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{part}.weight", N_EMBD)
        add(f"blk.{layer}.ffn_gate.weight", N_FF, N_EMBD)
        add(f"blk.{layer}.ffn_up.weight", N_FF, N_EMBD)
        add(f"blk.{layer}.ffn_down.weight", N_EMBD, N_FF)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

"""qwen3: a decoder with grouped heads, their norms and rotary positions; the EOS token pools."""

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, PoolingType

from tests.architectures.common import TinyModel, Weights, fill, in_gguf_names
from tests.architectures.trained_vocabulary import add_qwen, qwen_pieces

N_EMBD, N_FF, N_LAYER, N_POSITIONS, EPSILON = 64, 96, 3, 512, 1e-6
N_HEAD, N_HEAD_KV, HEAD = 4, 2, 24
"""As in the real ones, the heads together are wider than a row."""

ROPE_BASE = 1_000_000.0


def weights() -> Weights:
    """Make every tensor of transformers' Qwen3Model."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (len(qwen_pieces()), N_EMBD),
        "norm.weight": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        for name, shape in {
            "input_layernorm": (N_EMBD,),
            "self_attn.q_proj": (N_HEAD * HEAD, N_EMBD),
            "self_attn.k_proj": (N_HEAD_KV * HEAD, N_EMBD),
            "self_attn.v_proj": (N_HEAD_KV * HEAD, N_EMBD),
            "self_attn.o_proj": (N_EMBD, N_HEAD * HEAD),
            "self_attn.q_norm": (HEAD,),
            "self_attn.k_norm": (HEAD,),
            "post_attention_layernorm": (N_EMBD,),
            "mlp.gate_proj": (N_FF, N_EMBD),
            "mlp.up_proj": (N_FF, N_EMBD),
            "mlp.down_proj": (N_EMBD, N_FF),
        }.items():
            shapes[f"layers.{layer}.{name}.weight"] = shape
    return fill(shapes)


def _tensors() -> Weights:
    named = {f"model.{name}": values for name, values in weights().items()}
    return in_gguf_names(named, MODEL_ARCH.QWEN3, N_LAYER)


def _describe(writer: GGUFWriter) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_pooling_type(PoolingType.LAST)
    add_qwen(writer)


_MODEL = TinyModel(
    name="qwen3",
    architecture=MODEL_ARCH.QWEN3,
    describe=_describe,
    tensors=_tensors,
    pooling_type="last",
)

MODELS = (_MODEL,)

WRONG = {
    "the usual rotation": _MODEL.with_value("rope.freq_base", 10_000.0),
    "no EOS": _MODEL.with_value("tokenizer.ggml.add_eos_token", False),
    "another EOS": _MODEL.with_value("tokenizer.ggml.eos_token_id", len(qwen_pieces()) - 1),
    "mean for last": _MODEL.with_value("pooling_type", int(PoolingType.MEAN)),
    "no causal mask": _MODEL.with_added(lambda writer: writer.add_causal_attention(False)),
    "no norm of keys": _MODEL.with_tensors("blk.1.attn_k_norm.weight", np.ones_like),
    "the components of keys reversed": _MODEL.with_tensors(
        "blk.0.attn_k.weight", lambda rows: rows[::-1].copy()
    ),
}
"""Models that differ from the reference's in one thing."""

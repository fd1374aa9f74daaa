"""t5encoder: distances between tokens in buckets instead of positions; mean pooling.

The converter writes no pooling type for it, so the engine goes by the architecture.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter

from tests.architectures.common import TinyModel, Weights, fill, in_gguf_names, tensor
from tests.architectures.trained_vocabulary import N_T5_UNUSED, add_t5, t5_pieces
from tests.architectures.xlm_roberta import UNIGRAM_TEXTS

N_EMBD, N_FF, N_LAYER, N_POSITIONS, EPSILON = 64, 128, 3, 512, 1e-6
N_HEAD, HEAD = 4, 24
N_BUCKETS = 32
FARTHEST = 128
"""Distances from here on share a bucket. Source: ``max_distance`` in llama-graph.cpp."""

BUCKETS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"

N_VOCAB = len(t5_pieces()) + N_T5_UNUSED


def weights(*, gated: bool = False) -> Weights:
    """Make every tensor of transformers' T5EncoderModel.

    Args:
        gated: As T5 1.1 and Flan-T5 have it, with GELU; otherwise as T5 1.0 and sentence-t5, ReLU.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "shared.weight": (N_VOCAB, N_EMBD),
        "encoder.final_layer_norm.weight": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        first, second = (f"encoder.block.{layer}.layer.{part}" for part in (0, 1))
        shapes |= {f"{first}.SelfAttention.{x}.weight": (N_HEAD * HEAD, N_EMBD) for x in "qkv"}
        shapes[f"{first}.SelfAttention.o.weight"] = (N_EMBD, N_HEAD * HEAD)
        shapes[f"{second}.DenseReluDense.wo.weight"] = (N_EMBD, N_FF)
        shapes |= {f"{place}.layer_norm.weight": (N_EMBD,) for place in (first, second)}
        for name in ("wi_0", "wi_1") if gated else ("wi",):
            shapes[f"{second}.DenseReluDense.{name}.weight"] = (N_FF, N_EMBD)
    # added to scores far over 1: smaller ones would hardly show
    buckets = tensor(BUCKETS, N_BUCKETS, N_HEAD, std=1.0)
    return {**fill(shapes), BUCKETS: buckets}


def _describe(writer: GGUFWriter) -> None:
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_block_count(N_LAYER)
    writer.add_head_count(N_HEAD)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_relative_attn_buckets_count(N_BUCKETS)
    writer.add_layer_norm_rms_eps(EPSILON)
    add_t5(writer)


def _tensors(*, gated: bool) -> Weights:
    return in_gguf_names(weights(gated=gated), MODEL_ARCH.T5ENCODER, N_LAYER)


def dense_weights() -> Weights:
    """Make the module that sentence-t5 has behind the pooling: no bias, no activation."""
    return {"dense_2.weight": tensor("dense_2", N_EMBD, N_EMBD)}


_PLAIN = TinyModel(
    name="t5-encoder",
    architecture=MODEL_ARCH.T5ENCODER,
    describe=_describe,
    tensors=partial(_tensors, gated=False),
    pooling_source="architecture",
    texts=UNIGRAM_TEXTS,
)

MODELS = (
    _PLAIN,
    replace(_PLAIN, name="t5-encoder-gated", tensors=partial(_tensors, gated=True)),
)

_BIAS = "enc.blk.0.attn_rel_b.weight"

WRONG = {
    "the farthest bucket like the one before": _PLAIN.with_tensors(
        _BIAS, lambda rows: np.concatenate([rows[:31], rows[30:31]])
    ),
    "before and after in each other's place": _PLAIN.with_tensors(
        _BIAS, lambda rows: np.roll(rows, N_BUCKETS // 2, axis=0)
    ),
    "no EOS": _PLAIN.with_value("tokenizer.ggml.add_eos_token", False),
    "no distances": _PLAIN.with_tensors(_BIAS, np.zeros_like),
}
"""Models that differ from the reference's in one thing."""

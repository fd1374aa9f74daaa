"""nomic-bert: rotary positions, no biases in its layers, SwiGLU.

Within the 2048 positions of its training. What the published code does beyond them, stretching the
rotation by the length of the text, llama.cpp does not do, and ``n_ctx`` of the file keeps out.
"""

from dataclasses import replace

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, PoolingType

from tests.architectures.common import TinyModel, Weights, fill, in_gguf_names
from tests.architectures.vocabulary import add_wordpiece, wordpiece_vocabulary

N_EMBD, N_FF, N_LAYER, N_HEAD, N_POSITIONS, EPSILON = 64, 96, 3, 4, 256, 1e-12
THETA = 1000.0
"""Of nomic-embed-text-v1.5. Source: ``default_theta`` of transformers' NomicBertConfig."""


def weights() -> Weights:
    """Make every tensor of transformers' NomicBertModel."""
    shapes = {
        "embeddings.word_embeddings.weight": (len(wordpiece_vocabulary()), N_EMBD),
        "embeddings.token_type_embeddings.weight": (2, N_EMBD),
        "embeddings.LayerNorm.weight": (N_EMBD,),
        "embeddings.LayerNorm.bias": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        at = f"layers.{layer}"
        shapes |= {f"{at}.self_attn.{part}_proj.weight": (N_EMBD, N_EMBD) for part in "qkvo"}
        shapes |= {
            f"{at}.mlp.gate_proj.weight": (N_FF, N_EMBD),
            f"{at}.mlp.up_proj.weight": (N_FF, N_EMBD),
            f"{at}.mlp.down_proj.weight": (N_EMBD, N_FF),
            f"{at}.post_attention_layernorm.weight": (N_EMBD,),
            f"{at}.post_attention_layernorm.bias": (N_EMBD,),
            f"{at}.post_mlp_layernorm.weight": (N_EMBD,),
            f"{at}.post_mlp_layernorm.bias": (N_EMBD,),
        }
    return fill(shapes)


_PUBLISHED_NAMES = {
    "embeddings.LayerNorm": "emb_ln",
    "layers.": "encoder.layers.",
    "self_attn.o_proj": "attn.out_proj",
    "up_proj": "fc11",
    "gate_proj": "fc12",
    "down_proj": "fc2",
    "post_attention_layernorm": "norm1",
    "post_mlp_layernorm": "norm2",
}
"""The names in which the model was published, and which llama.cpp's converter knows.

Source: ``nomic_bert`` in transformers' conversion_mapping.py.
"""


def tensors() -> Weights:
    """Name the tensors as a GGUF does; query, key and value are one there."""
    given = dict(weights())
    published = {}
    for layer in range(N_LAYER):
        parts = [given.pop(f"layers.{layer}.self_attn.{part}_proj.weight") for part in "qkv"]
        published[f"encoder.layers.{layer}.attn.Wqkv.weight"] = np.concatenate(parts)
    for name, values in given.items():
        for ours, theirs in _PUBLISHED_NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        published[name] = values
    return in_gguf_names(published, MODEL_ARCH.NOMIC_BERT, N_LAYER)


def _describe(writer: GGUFWriter) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    add_wordpiece(writer, "jina-v2-en")


_MODEL = TinyModel(
    name="nomic-bert",
    architecture=MODEL_ARCH.NOMIC_BERT,
    describe=_describe,
    tensors=tensors,
)
MODELS = (_MODEL,)
WRONG = {
    "the usual rotation": _MODEL.with_value("rope.freq_base", 10_000.0),
    "gate and up swapped": replace(
        _MODEL,
        tensors=lambda: {
            name.replace("ffn_up", "ffn_x").replace("ffn_gate", "ffn_up").replace("_x", "_gate"): v
            for name, v in tensors().items()
        },
    ),
}
"""Models that differ from the reference's in one thing."""

"""bert: learned positions, post-norm, GELU; mean and CLS pooling of the same weights."""

from dataclasses import replace

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, PoolingType

from tests.architectures.common import TinyModel, Weights, fill, in_gguf_names
from tests.architectures.vocabulary import add_wordpiece, wordpiece_vocabulary

N_EMBD, N_FF, N_LAYER, N_HEAD, N_POSITIONS, EPSILON = 64, 128, 3, 4, 192, 1e-12


def weights() -> Weights:
    """Make every tensor of transformers' BertModel without its pooler."""
    linear: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (N_EMBD,)}
    for layer in range(N_LAYER):
        at = f"encoder.layer.{layer}"
        linear |= {
            f"{at}.attention.self.query": (N_EMBD, N_EMBD),
            f"{at}.attention.self.key": (N_EMBD, N_EMBD),
            f"{at}.attention.self.value": (N_EMBD, N_EMBD),
            f"{at}.attention.output.dense": (N_EMBD, N_EMBD),
            f"{at}.attention.output.LayerNorm": (N_EMBD,),
            f"{at}.intermediate.dense": (N_FF, N_EMBD),
            f"{at}.output.dense": (N_EMBD, N_FF),
            f"{at}.output.LayerNorm": (N_EMBD,),
        }
    return fill(
        {
            "embeddings.word_embeddings.weight": (len(wordpiece_vocabulary()), N_EMBD),
            "embeddings.position_embeddings.weight": (N_POSITIONS, N_EMBD),
            "embeddings.token_type_embeddings.weight": (2, N_EMBD),
        }
        | {f"{name}.weight": shape for name, shape in linear.items()}
        | {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    )


def _describe(writer: GGUFWriter, pooling: PoolingType) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    add_wordpiece(writer, "jina-v2-en")


_MEAN = TinyModel(
    name="bert-mean",
    architecture=MODEL_ARCH.BERT,
    describe=lambda writer: _describe(writer, PoolingType.MEAN),
    tensors=lambda: in_gguf_names(weights(), MODEL_ARCH.BERT, N_LAYER),
)

MODELS = (
    _MEAN,
    replace(
        _MEAN,
        name="bert-cls",
        describe=lambda writer: _describe(writer, PoolingType.CLS),
        pooling_type="cls",
    ),
)

WRONG = {
    "second text's type": _MEAN.with_tensors("token_types.weight", lambda rows: rows[::-1].copy()),
    "positions from 1": _MEAN.with_tensors(
        "position_embd.weight", lambda rows: np.roll(rows, -1, axis=0)
    ),
    "cls for mean": _MEAN.with_value("pooling_type", int(PoolingType.CLS)),
}
"""Models that differ from the reference's in one thing."""

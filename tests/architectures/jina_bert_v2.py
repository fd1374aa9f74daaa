"""jina-bert-v2: no positions but ALiBi, GEGLU; with a forward pass of its own in numpy.

transformers does not have it. `token_rows` is written from what the published code does.
Source: JinaBertSelfAttention, JinaBertGLUMLP and JinaBertEncoder.rebuild_alibi_tensor in
modeling_bert.py of huggingface.co/jinaai/jina-bert-implementation.
"""

import math
from collections.abc import Sequence

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, PoolingType
from numpy.typing import NDArray

from tests.architectures.common import TinyModel, Weights, fill, in_gguf_names
from tests.architectures.vocabulary import add_wordpiece, wordpiece_vocabulary

Rows = NDArray[np.float64]

N_EMBD, N_FF, N_LAYER, N_HEAD, N_POSITIONS, EPSILON = 96, 96, 2, 6, 512, 1e-12
"""6 heads, no power of 2 as the 12 of jina-embeddings-v2-base: their slopes are special."""


def weights() -> Weights:
    """Make every tensor of the published JinaBertModel without its pooler."""
    with_bias: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (N_EMBD,)}
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(wordpiece_vocabulary()), N_EMBD),
        "embeddings.token_type_embeddings.weight": (2, N_EMBD),
    }
    for layer in range(N_LAYER):
        at = f"encoder.layer.{layer}"
        with_bias |= {
            f"{at}.attention.self.query": (N_EMBD, N_EMBD),
            f"{at}.attention.self.key": (N_EMBD, N_EMBD),
            f"{at}.attention.self.value": (N_EMBD, N_EMBD),
            f"{at}.attention.output.dense": (N_EMBD, N_EMBD),
            f"{at}.attention.output.LayerNorm": (N_EMBD,),
            f"{at}.mlp.wo": (N_EMBD, N_FF),
            f"{at}.mlp.layernorm": (N_EMBD,),
        }
        shapes[f"{at}.mlp.gated_layers.weight"] = (2 * N_FF, N_EMBD)
    shapes |= {f"{name}.weight": shape for name, shape in with_bias.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in with_bias.items()}
    return fill(shapes)


def slopes(n_head: int) -> list[float]:
    """Give how fast each head's attention falls with the distance.

    Source: https://arxiv.org/abs/2108.12409, and for counts that are no power of 2 its published
    code: those of the next lower power, then every other one of the next higher.
    """
    lower = 2 ** int(math.log2(n_head))
    first = [2.0 ** (-8.0 * (head + 1) / lower) for head in range(lower)]
    between = [2.0 ** (-8.0 * (head + 1) / (2 * lower)) for head in range(0, 2 * lower, 2)]
    return first + between[: n_head - lower]


def token_rows(ids: Sequence[int], *, head_slopes: Sequence[float] | None = None) -> Rows:
    """Run the model on one text.

    Args:
        ids: Token ids.
        head_slopes: In place of the right ones, to see them matter.

    Returns:
        float64 (n_tokens, n_embd).
    """
    given = {name: values.astype(np.float64) for name, values in weights().items()}
    rows = given["embeddings.word_embeddings.weight"][list(ids)]
    rows = rows + given["embeddings.token_type_embeddings.weight"][0]
    rows = _layer_norm(rows, given, "embeddings.LayerNorm")
    places = np.arange(len(ids))
    distance = np.abs(places[:, np.newaxis] - places)
    biases = [-slope * distance for slope in head_slopes or slopes(N_HEAD)]
    for layer in range(N_LAYER):
        at = f"encoder.layer.{layer}"
        attended = _linear(
            _attention(rows, given, at, biases), given, f"{at}.attention.output.dense"
        )
        rows = _layer_norm(rows + attended, given, f"{at}.attention.output.LayerNorm")
        gate, other = np.split(rows @ given[f"{at}.mlp.gated_layers.weight"].T, 2, axis=1)
        inner = _linear(_gelu(gate) * other, given, f"{at}.mlp.wo")
        rows = _layer_norm(rows + inner, given, f"{at}.mlp.layernorm")
    return rows


def _attention(rows: Rows, given: dict[str, Rows], at: str, biases: Sequence[Rows]) -> Rows:
    heads = []
    parts = (
        _linear(rows, given, f"{at}.attention.self.{part}") for part in ("query", "key", "value")
    )
    split = zip(*(np.split(part, N_HEAD, axis=1) for part in parts), strict=True)
    for (query, key, value), bias in zip(split, biases, strict=True):
        scores = query @ key.T / math.sqrt(query.shape[1]) + bias
        weighed = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weighed / weighed.sum(axis=1, keepdims=True) @ value)
    return np.concatenate(heads, axis=1)


def _linear(rows: Rows, given: dict[str, Rows], name: str) -> Rows:
    moved: Rows = rows @ given[f"{name}.weight"].T + given[f"{name}.bias"]
    return moved


def _layer_norm(rows: Rows, given: dict[str, Rows], name: str) -> Rows:
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    moved: Rows = scaled * given[f"{name}.weight"] + given[f"{name}.bias"]
    return moved


def _gelu(values: Rows) -> Rows:
    erf: Rows = np.vectorize(math.erf)(values / math.sqrt(2.0))
    return values * 0.5 * (1.0 + erf)


def _describe(writer: GGUFWriter) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    add_wordpiece(writer, "jina-v2-en")


_MODEL = TinyModel(
    name="jina-bert-v2",
    architecture=MODEL_ARCH.JINA_BERT_V2,
    describe=_describe,
    tensors=lambda: in_gguf_names(weights(), MODEL_ARCH.JINA_BERT_V2, N_LAYER),
)
MODELS = (_MODEL,)
WRONG = {
    "gate and the other half swapped": _MODEL.with_tensors(
        "ffn_up.weight", lambda rows: np.roll(rows, N_FF, axis=0)
    ),
}
"""Models that differ from the reference's in one thing; `token_rows` shows what ALiBi does."""

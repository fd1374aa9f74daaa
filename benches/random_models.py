"""Encoders of the shapes that people use, with random weights, as GGUF files.

Weights of linear layers spread by 0.02 × gain, as a BERT's do before it is trained; the gain of
queries and keys is larger, so that a token attends to some more than to others. That is easier on
rounding than trained weights are: bytes come to 0.99999 of llama.cpp's vectors in place of MiniLM's
0.9992. Weights that keep the variance of what they multiply, 1 / √n_embd, are harder than those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, PoolingType
from numpy.typing import NDArray

from tests.architectures.common import TinyModel
from tests.architectures.vocabulary import add_wordpiece, wordpiece_vocabulary

N_POSITIONS = 512
EPSILON = 1e-12
INITIALIZER_RANGE = 0.02
"""Source: ``initializer_range`` of transformers' BertConfig."""

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class RandomShape:
    """Widths of an encoder, and what llama.cpp calls its architecture."""

    architecture: MODEL_ARCH
    n_layers: int
    n_embd: int
    n_heads: int
    n_ff: int
    pooling: Literal["mean", "cls"] = "mean"
    rope_base: float | None = None


SHAPES = {
    "bge-small": RandomShape(MODEL_ARCH.BERT, 12, 384, 12, 1536, "cls"),
    "bge": RandomShape(MODEL_ARCH.BERT, 12, 768, 12, 3072, "cls"),
    "e5": RandomShape(MODEL_ARCH.BERT, 12, 384, 12, 1536),
    "nomic": RandomShape(MODEL_ARCH.NOMIC_BERT, 12, 768, 12, 3072, rope_base=1000.0),
    "jina": RandomShape(MODEL_ARCH.JINA_BERT_V2, 4, 512, 8, 2048),
}
"""bge-small-en-v1.5, bge-base-en-v1.5, e5-small-v2, nomic-embed-text-v1.5 and
jina-embeddings-v2-small-en. Source: their config.json."""


class _Tensors:
    """Random tensors under GGUF's names."""

    def __init__(self, seed: int) -> None:
        self.made: Tensors = {}
        self._generator = np.random.default_rng(seed)

    def add(self, name: str, *shape: int, spread: float, centre: float = 0.0) -> None:
        values = self._generator.standard_normal(shape, dtype=np.float32)
        self.made[name] = np.float32(centre) + np.float32(spread) * values

    def linear(
        self, name: str, n_out: int, n_in: int, *, gain: float = 1.0, bias: bool = True
    ) -> None:
        self.add(f"{name}.weight", n_out, n_in, spread=gain * INITIALIZER_RANGE)
        if bias:
            self.add(f"{name}.bias", n_out, spread=0.1)

    def norm(self, name: str, width: int) -> None:
        self.add(f"{name}.weight", width, centre=1.0, spread=0.1)
        self.add(f"{name}.bias", width, spread=0.1)


def _attention(made: _Tensors, at: str, shape: RandomShape) -> None:
    n_embd = shape.n_embd
    if shape.architecture == MODEL_ARCH.NOMIC_BERT:
        made.linear(f"{at}attn_qkv", 3 * n_embd, n_embd, gain=1.2, bias=False)
        made.linear(f"{at}attn_output", n_embd, n_embd, bias=False)
        return
    for part, gain in (("q", 1.5), ("k", 1.5), ("v", 1.0), ("output", 1.0)):
        made.linear(f"{at}attn_{part}", n_embd, n_embd, gain=gain)


def _feed_forward(made: _Tensors, at: str, shape: RandomShape) -> None:
    n_embd, n_ff = shape.n_embd, shape.n_ff
    is_nomic = shape.architecture == MODEL_ARCH.NOMIC_BERT
    is_jina = shape.architecture == MODEL_ARCH.JINA_BERT_V2
    if is_nomic:
        made.linear(f"{at}ffn_gate", n_ff, n_embd, bias=False)
    # in jina's files gate and the other half are one tensor
    n_up = 2 * n_ff if is_jina else n_ff
    made.linear(f"{at}ffn_up", n_up, n_embd, bias=not is_nomic and not is_jina)
    made.linear(f"{at}ffn_down", n_embd, n_ff, bias=not is_nomic)


def tensors_of(shape: RandomShape, seed: int = 1) -> Tensors:
    """Make every tensor of a shape, float32; the same ones every time."""
    made, n_embd = _Tensors(seed), shape.n_embd
    made.add("token_embd.weight", len(wordpiece_vocabulary()), n_embd, spread=1.0)
    made.add("token_types.weight", 2, n_embd, spread=0.3)
    if shape.architecture == MODEL_ARCH.BERT:
        made.add("position_embd.weight", N_POSITIONS, n_embd, spread=0.3)
    made.norm("token_embd_norm", n_embd)
    for layer in range(shape.n_layers):
        at = f"blk.{layer}."
        _attention(made, at, shape)
        made.norm(f"{at}attn_output_norm", n_embd)
        _feed_forward(made, at, shape)
        made.norm(f"{at}layer_output_norm", n_embd)
    return made.made


def _describe(shape: RandomShape, writer: GGUFWriter) -> None:
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    if shape.rope_base is not None:
        writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.CLS if shape.pooling == "cls" else PoolingType.MEAN)
    add_wordpiece(writer, "jina-v2-en")


def write_random(shape: RandomShape, path: Path) -> Path:
    """Write a model of a shape as F32."""
    describe: Callable[[GGUFWriter], None] = partial(_describe, shape)
    return TinyModel(
        name=path.stem,
        architecture=shape.architecture,
        describe=describe,
        tensors=lambda: tensors_of(shape),
    ).write(path)

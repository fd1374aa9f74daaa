"""BERT in a few lines of NumPy and double precision: what the native kernels are held against."""

from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.tiny_bert import tensors_of, value_of

_erf = np.vectorize(erf)


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    return x * 0.5 * (1 + _erf(x / sqrt(2)))


class BertReference:
    """Token rows of a GGUF of architecture bert."""

    def __init__(self, path: Path) -> None:
        self.t = {name: value.astype(np.float64) for name, value in tensors_of(path).items()}
        self.n_layer = value_of(path, "bert.block_count")
        self.n_head = value_of(path, "bert.attention.head_count")
        self.eps = value_of(path, "bert.attention.layer_norm_epsilon")

    def linear(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        return x @ self.t[f"{name}.weight"].T + self.t[f"{name}.bias"]

    def norm(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.eps)
        return scaled * self.t[f"{name}.weight"] + self.t[f"{name}.bias"]

    def rows(self, ids: list[int], types: list[int] | None = None) -> NDArray[np.float64]:
        """Return float64 (n_tokens, n_embd)."""
        types = types if types is not None else [0] * len(ids)
        t = self.t
        x = t["token_embd.weight"][ids] + t["position_embd.weight"][: len(ids)]
        x = self.norm("token_embd_norm", x + t["token_types.weight"][types])
        for layer in range(self.n_layer):
            at = f"blk.{layer}."
            x = self.norm(f"{at}attn_output_norm", x + self.attention(at, x))
            inner = self.linear(f"{at}ffn_down", gelu(self.linear(f"{at}ffn_up", x)))
            x = self.norm(f"{at}layer_output_norm", x + inner)
        return x

    def attention(self, at: str, x: NDArray[Any]) -> NDArray[Any]:
        def heads(name: str) -> NDArray[Any]:
            return self.linear(at + name, x).reshape(len(x), self.n_head, -1).transpose(1, 0, 2)

        queries, keys, values = heads("attn_q"), heads("attn_k"), heads("attn_v")
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self.linear(
            f"{at}attn_output", (weights @ values).transpose(1, 0, 2).reshape(x.shape)
        )

"""BERT and its relatives in double precision: what the native kernels are held against."""

from math import erf, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.architectures.jina_bert_v2 import slopes
from tests.tiny_bert import tensors_of, value_of

_erf = np.vectorize(erf)


def gelu(x: NDArray[Any]) -> NDArray[Any]:
    return x * 0.5 * (1 + _erf(x / sqrt(2)))


def silu(x: NDArray[Any]) -> NDArray[Any]:
    return x / (1 + np.exp(-x))


class BertReference:
    """Token rows of a GGUF of architecture bert, nomic-bert or jina-bert-v2."""

    def __init__(self, path: Path) -> None:
        self.t = {name: value.astype(np.float64) for name, value in tensors_of(path).items()}
        self.architecture = value_of(path, "general.architecture")

        def of(name: str) -> Any:
            return value_of(path, f"{self.architecture}.{name}")

        self.n_layer = of("block_count")
        self.n_head = of("attention.head_count")
        self.eps = of("attention.layer_norm_epsilon")
        self.rope_base = of("rope.freq_base")
        self.n_rotated = of("rope.dimension_count") or self.t["token_embd.weight"].shape[1] // (
            self.n_head
        )

    def linear(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        return x @ self.t[f"{name}.weight"].T + self.t.get(f"{name}.bias", 0.0)

    def norm(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        centred = x - x.mean(axis=1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.eps)
        return scaled * self.t[f"{name}.weight"] + self.t.get(f"{name}.bias", 0.0)

    def norm_if_any(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        return self.norm(name, x) if f"{name}.weight" in self.t else x

    def rows(self, ids: list[int], types: list[int] | None = None) -> NDArray[np.float64]:
        """Return float64 (n_tokens, n_embd)."""
        types = types if types is not None else [0] * len(ids)
        t = self.t
        x = t["token_embd.weight"][ids] + t["token_types.weight"][types]
        if self.architecture == "bert":
            x = x + t["position_embd.weight"][: len(ids)]
        x = self.norm("token_embd_norm", x)
        for layer in range(self.n_layer):
            at = f"blk.{layer}."
            before = x
            x = self.norm(f"{at}attn_output_norm", x + self.attention(at, x))
            if f"{at}attn_norm_2.weight" in t:
                x = self.norm(f"{at}attn_norm_2", x + before)
            x = self.norm(f"{at}layer_output_norm", x + self.feed_forward(at, x))
        return x

    def feed_forward(self, at: str, x: NDArray[Any]) -> NDArray[Any]:
        up = self.linear(f"{at}ffn_up", x)
        if f"{at}ffn_gate.weight" in self.t:
            gate = self.linear(f"{at}ffn_gate", x)
            inner = (silu if self.architecture == "nomic-bert" else gelu)(gate) * up
        elif up.shape[1] == 2 * self.t[f"{at}ffn_down.weight"].shape[1]:
            gate, up = np.split(up, 2, axis=1)
            inner = gelu(gate) * up
        else:
            inner = gelu(up)
        return self.linear(f"{at}ffn_down", inner)

    def attention(self, at: str, x: NDArray[Any]) -> NDArray[Any]:
        def heads(part: NDArray[Any]) -> NDArray[Any]:
            return part.reshape(len(x), self.n_head, -1).transpose(1, 0, 2)

        if f"{at}attn_qkv.weight" in self.t:
            parts = np.split(self.linear(f"{at}attn_qkv", x), 3, axis=1)
        else:
            parts = [self.linear(f"{at}attn_{part}", x) for part in "qkv"]
        queries = self.rotated(heads(self.norm_if_any(f"{at}attn_q_norm", parts[0])))
        keys = self.rotated(heads(self.norm_if_any(f"{at}attn_k_norm", parts[1])))
        values = heads(parts[2])
        scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(queries.shape[-1])
        if self.architecture == "jina-bert-v2":
            places = np.arange(len(x))
            distances = np.abs(places[:, np.newaxis] - places)
            scores = scores - np.array(slopes(self.n_head))[:, np.newaxis, np.newaxis] * distances
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return self.linear(
            f"{at}attn_output", (weights @ values).transpose(1, 0, 2).reshape(x.shape)
        )

    def rotated(self, heads: NDArray[Any]) -> NDArray[Any]:
        """Rotate (n_head, n_tokens, head_size) as nomic-bert does; return others as they are."""
        if self.architecture != "nomic-bert":
            return heads
        half = self.n_rotated // 2
        speeds = self.rope_base ** (-np.arange(half) / half)
        angles = np.arange(heads.shape[1])[:, np.newaxis] * speeds
        first, second, rest = np.split(heads, [half, 2 * half], axis=2)
        return np.concatenate(
            [
                first * np.cos(angles) - second * np.sin(angles),
                first * np.sin(angles) + second * np.cos(angles),
                rest,
            ],
            axis=2,
        )

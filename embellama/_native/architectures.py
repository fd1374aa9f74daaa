"""What the kernels know of each architecture: how its layers are made, and of which tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from embellama.gguf import GGUFMetadata, TensorPlace

Activation = Literal["gelu", "swiglu", "geglu"]
Positions = Literal["absolute", "rotary", "alibi"]

POSITION_CODES: dict[Positions, int] = {"absolute": 0, "rotary": 1, "alibi": 2}
ACTIVATION_CODES: dict[Activation, int] = {"gelu": 0, "swiglu": 1, "geglu": 2}
"""Source: ``enum em_position_encoding`` and ``enum em_activation`` in embellama_native.h."""

ALIBI_BIAS = 8.0
"""Source: ``f_max_alibi_bias`` in models/jina-bert-v2.cpp of llama.cpp."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How the layers of an architecture differ from another's.

    Attributes:
        positions: How a token knows its place.
        activation: Between the halves of a feed-forward block, where it has a gate.
    """

    positions: Positions
    activation: Activation


ARCHITECTURES = {
    "bert": Architecture("absolute", "gelu"),
    "jina-bert-v2": Architecture("alibi", "geglu"),
    "nomic-bert": Architecture("rotary", "swiglu"),
}
"""Source: models/bert.cpp of llama.cpp. Its GELU is an approximation; all of these were trained
with the function itself."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that the kernels take.

    Attributes:
        name: In the file.
        may_lack: Whether a model may do without it.
        place: Where it is; None: it is not there.
    """

    name: str
    may_lack: bool
    place: TensorPlace | None


_OF_A_LAYER = (
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "attn_output_norm",
    "ffn_up",
    "ffn_down",
    "layer_output_norm",
    "ffn_gate",
    "attn_q_norm",
    "attn_k_norm",
    "attn_norm_2",
)
"""Each has a weight and a bias. Source: ``LLM_TENSOR_NAMES`` in llama-arch.cpp."""

_OPTIONAL_NORMS = frozenset({"attn_q_norm", "attn_k_norm", "attn_norm_2"})
_NEED_BIAS = frozenset({"attn_output_norm", "layer_output_norm"})
_PARTS_OF_QKV = ("attn_q", "attn_k", "attn_v")


def activation_of(metadata: GGUFMetadata) -> Activation:
    """Return what is between the halves of the feed-forward blocks of a supported model."""
    architecture = ARCHITECTURES[metadata.architecture]
    # jina-bert-v2 is also run without a gate. Source: models/bert.cpp of llama.cpp.
    if metadata.architecture == "jina-bert-v2" and not metadata.is_gated:
        return "gelu"
    return architecture.activation


def slots_of(metadata: GGUFMetadata) -> Iterator[Slot]:
    """Yield the tensors of a supported model in the kernels' order.

    A tensor that is fused with others in the file comes as its own part of that.
    """
    tensors = metadata.tensors
    has_positions = ARCHITECTURES[metadata.architecture].positions == "absolute"
    for name, may_lack in (
        ("token_embd.weight", False),
        ("position_embd.weight", not has_positions),
        ("token_types.weight", True),
        ("token_embd_norm.weight", False),
        ("token_embd_norm.bias", False),
    ):
        yield Slot(name, may_lack, tensors.get(name))
    is_gated = activation_of(metadata) != "gelu"
    for layer in range(metadata.n_layer):
        for part in _OF_A_LAYER:
            for kind in ("weight", "bias"):
                place = _place(metadata, f"blk.{layer}.", part, kind)
                yield Slot(f"blk.{layer}.{part}.{kind}", _may_lack(part, kind, is_gated), place)


def _may_lack(part: str, kind: str, is_gated: bool) -> bool:
    if kind == "bias":
        return part not in _NEED_BIAS
    return part in _OPTIONAL_NORMS or (part == "ffn_gate" and not is_gated)


def _place(metadata: GGUFMetadata, at: str, part: str, kind: str) -> TensorPlace | None:
    tensors = metadata.tensors
    fused = tensors.get(f"{at}attn_qkv.{kind}")
    if part in _PARTS_OF_QKV and fused is not None:
        return _third_or_half(fused, _PARTS_OF_QKV.index(part), 3, kind)
    both = tensors.get(f"{at}ffn_up.weight")
    if (
        part in ("ffn_up", "ffn_gate")
        and f"{at}ffn_gate.weight" not in tensors
        and both is not None
        and both.shape[0] == 2 * metadata.n_ff
    ):
        place = tensors.get(f"{at}ffn_up.{kind}")
        return place and _third_or_half(place, ("ffn_gate", "ffn_up").index(part), 2, kind)
    return tensors.get(f"{at}{part}.{kind}")


def _third_or_half(place: TensorPlace, index: int, n_parts: int, kind: str) -> TensorPlace:
    """Return one of equal parts of the rows of a weight, or of the one row of a bias."""
    n_rows, n_columns = place.shape
    size = place.size_bytes // n_parts
    return replace(
        place,
        offset=place.offset + index * size,
        size_bytes=size,
        shape=(n_rows // n_parts, n_columns)
        if kind == "weight"
        else (n_rows, n_columns // n_parts),
    )

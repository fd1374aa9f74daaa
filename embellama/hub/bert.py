"""BERT in transformers' words and in GGUF's: settings, and the names and shapes of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from embellama.errors import ConversionError
from embellama.gguf_header import printable
from embellama.hub.model_folder import read_json

ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForPreTraining")
"""Classes of transformers whose encoder is a plain BERT without a head that we would lose."""

CROSS_ENCODER = "BertForSequenceClassification"
"""Its head, pooler and classifier, is kept: with one label it scores a pair of texts."""

_T = TypeVar("_T", int, float, bool, str)

_UNUSED = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclass(frozen=True, slots=True)
class BertSettings:
    """The numbers of a BERT.

    Attributes:
        n_vocab: Rows of the token table.
        n_positions: Rows of the position table: the longest text in tokens.
        n_token_types: Rows of the segment table.
        n_embd: Components of a token row.
        n_ff: Components within the feed-forward part.
        n_layer: Layers.
        n_head: Attention heads of a layer.
        layer_norm_epsilon: What keeps a norm from dividing by zero.
        label: What the one score of a cross-encoder is called; None for an embedder.
    """

    n_vocab: int
    n_positions: int
    n_token_types: int
    n_embd: int
    n_ff: int
    n_layer: int
    n_head: int
    layer_norm_epsilon: float
    label: str | None = None


def read_bert_settings(path: Path) -> BertSettings:
    """Read and check a BERT's config.json.

    Raises:
        ConversionError: It is of another family, has what llama.cpp's BERT cannot compute, or is a
            classifier of several labels.
    """
    config = read_json(path)
    _check_family(path, config)
    settings = BertSettings(
        n_vocab=_number(path, config, "vocab_size", int),
        n_positions=_number(path, config, "max_position_embeddings", int),
        n_token_types=_number(path, config, "type_vocab_size", int, 2),
        n_embd=_number(path, config, "hidden_size", int),
        n_ff=_number(path, config, "intermediate_size", int),
        n_layer=_number(path, config, "num_hidden_layers", int),
        n_head=_number(path, config, "num_attention_heads", int),
        layer_norm_epsilon=_number(path, config, "layer_norm_eps", float, 1e-12),
        label=_label(path, config),
    )
    if settings.n_embd % settings.n_head:
        raise ConversionError(
            f"{str(path)!r}: hidden_size {settings.n_embd} is not a multiple of "
            f"num_attention_heads {settings.n_head}"
        )
    return settings


def _check_family(path: Path, config: Mapping[str, Any]) -> None:
    family, classes = config.get("model_type", "bert"), config.get("architectures") or ["BertModel"]
    if family != "bert" or not set(classes) & {*ARCHITECTURES, CROSS_ENCODER}:
        raise ConversionError(
            f"{str(path)!r} is of {', '.join(map(str, classes))} (model_type {family!r}); "
            f"{', '.join((*ARCHITECTURES, CROSS_ENCODER))} of model_type 'bert' can be converted: "
            "for others use llama.cpp's convert_hf_to_gguf.py, or a ready-made .gguf"
        )
    for name, default, allowed in (
        ("hidden_act", "gelu", "gelu"),
        ("position_embedding_type", "absolute", "absolute"),
        ("is_decoder", False, False),
    ):
        if (value := config.get(name, default)) != allowed:
            raise ConversionError(
                f"{str(path)!r}: {name} is {value!r}, and llama.cpp's BERT computes only "
                f"{allowed!r}: its vectors would be wrong; use sentence-transformers for this model"
            )


def _label(path: Path, config: Mapping[str, Any]) -> str | None:
    """Name the one score of a cross-encoder.

    Source: ``num_labels`` and ``id2label`` of transformers' PretrainedConfig; a config that says
    neither means two labels.
    """
    if CROSS_ENCODER not in (config.get("architectures") or ()):
        return None
    found = config.get("id2label")
    labels = found if isinstance(found, Mapping) else {}
    n_labels = len(labels) or _number(path, config, "num_labels", int, 2)
    if n_labels != 1:
        raise ConversionError(
            f"{str(path)!r} is of {CROSS_ENCODER} with {n_labels} labels, and a reranker gives a "
            "pair one score; use transformers for this model, or a cross-encoder with one label"
        )
    return printable(str(*labels.values())) if labels else "LABEL_0"


def _number(
    path: Path, config: Mapping[str, Any], name: str, kind: type[_T], default: _T | None = None
) -> _T:
    value = config.get(name, default)
    if type(value) not in (int, kind) or not (math.isfinite(value) and value > 0):
        raise ConversionError(f"{str(path)!r}: {name} is {value!r}, and should be over 0")
    return kind(value)


def plain_name(name: str, settings: BertSettings) -> str | None:
    """Strip what wrappers and old checkpoints put around a tensor's name.

    Returns:
        The name within BertModel, or None for a tensor that the model does not need.
    """
    name = name.removeprefix("bert.")
    # No embedding needs the pooler, and no model the heads of pre-training.
    unused = ("cls.",) if settings.label is not None else ("cls.", "pooler.")
    if name in _UNUSED or name.startswith(unused):
        return None
    stem, _, last = name.rpartition(".")
    return f"{stem}.{ {'gamma': 'weight', 'beta': 'bias'}.get(last, last) }"


def expected_tensors(settings: BertSettings) -> dict[str, tuple[str, tuple[int, ...]]]:
    """List a BERT's tensors: transformers' name → GGUF's name and the shape, rows first.

    Source: ``MODEL_TENSOR.BERT`` and tensor_mapping.py of the gguf package. For the pooler before
    a classifier: llama.cpp's models/bert.cpp and ``build_pooling`` in llama-graph.cpp, which
    compute it (``cls``, then tanh), though ``BertModel.filter_tensors`` in its
    conversion/bert.py leaves it out.
    """
    wide, inner = settings.n_embd, settings.n_ff
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {
        "embeddings.word_embeddings.weight": ("token_embd.weight", (settings.n_vocab, wide)),
        "embeddings.position_embeddings.weight": (
            "position_embd.weight",
            (settings.n_positions, wide),
        ),
        "embeddings.token_type_embeddings.weight": (
            "token_types.weight",
            (settings.n_token_types, wide),
        ),
    }
    modules: list[tuple[str, str, tuple[int, ...]]] = [
        ("embeddings.LayerNorm", "token_embd_norm", (wide,))
    ]
    for layer in range(settings.n_layer):
        modules += [
            (f"encoder.layer.{layer}.{source}", f"blk.{layer}.{target}", shape)
            for source, target, shape in (
                ("attention.self.query", "attn_q", (wide, wide)),
                ("attention.self.key", "attn_k", (wide, wide)),
                ("attention.self.value", "attn_v", (wide, wide)),
                ("attention.output.dense", "attn_output", (wide, wide)),
                ("attention.output.LayerNorm", "attn_output_norm", (wide,)),
                ("intermediate.dense", "ffn_up", (inner, wide)),
                ("output.dense", "ffn_down", (wide, inner)),
                ("output.LayerNorm", "layer_output_norm", (wide,)),
            )
        ]
    if settings.label is not None:
        modules += [
            ("pooler.dense", "cls", (wide, wide)),
            ("classifier", "cls.output", (1, wide)),
        ]
    for source, target, shape in modules:
        tensors[f"{source}.weight"] = (f"{target}.weight", shape)
        tensors[f"{source}.bias"] = (f"{target}.bias", shape[:1])
    return tensors

"""BERT folders of a few kilobytes: random weights, a small vocabulary, written with safetensors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray
from safetensors.numpy import save_file

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "a", "##b", "c", "##ing", "é"]
SPELT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁[unused0]", "▁a", "b", "▁c", "ing", "▁é"]
SPECIAL = WORDS[:5]

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 16,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}


def tokenizer_json(words: list[str] = WORDS) -> dict[str, Any]:
    return {
        "added_tokens": [
            {"id": words.index(text), "content": text, "special": True} for text in SPECIAL
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "lowercase": True,
            "strip_accents": None,
            "handle_chinese_chars": True,
        },
        "model": {
            "type": "WordPiece",
            "continuing_subword_prefix": "##",
            "vocab": {text: number for number, text in enumerate(words)},
        },
    }


def random_weights(config: dict[str, Any] = CONFIG, seed: int = 7) -> dict[str, NDArray[Any]]:
    """Make every tensor of a transformers BERT, float32."""
    generator = np.random.default_rng(seed)
    wide, inner = config["hidden_size"], config["intermediate_size"]

    def tensor(*shape: int) -> NDArray[np.float32]:
        return generator.normal(0, 0.1, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": tensor(config["vocab_size"], wide),
        "embeddings.position_embeddings.weight": tensor(config["max_position_embeddings"], wide),
        "embeddings.token_type_embeddings.weight": tensor(config["type_vocab_size"], wide),
        "embeddings.LayerNorm.weight": tensor(wide),
        "embeddings.LayerNorm.bias": tensor(wide),
        "pooler.dense.weight": tensor(wide, wide),
        "pooler.dense.bias": tensor(wide),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, rows, columns in (
            ("attention.self.query", wide, wide),
            ("attention.self.key", wide, wide),
            ("attention.self.value", wide, wide),
            ("attention.output.dense", wide, wide),
            ("intermediate.dense", inner, wide),
            ("output.dense", wide, inner),
        ):
            weights[f"encoder.layer.{layer}.{name}.weight"] = tensor(rows, columns)
            weights[f"encoder.layer.{layer}.{name}.bias"] = tensor(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"encoder.layer.{layer}.{name}.weight"] = tensor(wide)
            weights[f"encoder.layer.{layer}.{name}.bias"] = tensor(wide)
    return weights


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_folder(
    folder: Path, *, weights: dict[str, NDArray[Any]] | None = None, **changes: Any
) -> Path:
    """Write a sentence-transformers folder; ``changes`` are changes of its config.json."""
    config = CONFIG | changes
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", tokenizer_json())
    write_json(folder / "modules.json", modules("Transformer", "Pooling", "Normalize"))
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    save_file(random_weights(config) if weights is None else weights, folder / "model.safetensors")
    return folder


def modules(*kinds: str) -> list[dict[str, Any]]:
    return [
        {"idx": n, "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.{kind}"}
        for n, kind in enumerate(kinds)
    ]


def tensors_of(path: Path) -> dict[str, NDArray[Any]]:
    """Read every tensor back as float32, rows first."""
    return {t.name: dequantize(t.data, t.tensor_type) for t in GGUFReader(path).tensors}


def types_of(path: Path) -> dict[str, str]:
    return {t.name: t.tensor_type.name for t in GGUFReader(path).tensors}


def value_of(path: Path, key: str) -> Any:
    field = GGUFReader(path).get_field(key)
    return None if field is None else field.contents()

"""The tiny cross-encoder as transformers' BertForSequenceClassification saves it: a folder."""

from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tests.tiny_bert import tokenizer_json, write_json
from tests.tiny_cross_encoder import N_CTX, N_EMBD, N_FF, N_HEAD, N_LAYER, WORDS, bert_weights

CONFIG: dict[str, Any] = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": N_EMBD,
    "id2label": {"0": "LABEL_0"},
    "intermediate_size": N_FF,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": N_CTX,
    "num_attention_heads": N_HEAD,
    "num_hidden_layers": N_LAYER,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
}


def saved_weights() -> dict[str, Any]:
    """Make the tensors under the names that a checkpoint has."""
    return {
        name if name.startswith("classifier") else f"bert.{name}": tensor
        for name, tensor in bert_weights().items()
    }


def write_cross_encoder_folder(
    folder: Path, *, weights: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """Write the folder; ``changes`` are changes of its config.json, None takes a value away."""
    config = {key: value for key, value in (CONFIG | changes).items() if value is not None}
    write_json(folder / "config.json", config)
    write_json(folder / "tokenizer.json", tokenizer_json(WORDS))
    save_file(weights or saved_weights(), folder / "model.safetensors")
    return folder

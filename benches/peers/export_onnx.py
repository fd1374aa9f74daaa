"""A BERT folder → ONNX graphs: float32 fused as published ones are, and dynamic int8 of it.

    python -m benches.peers.export_onnx FOLDER TARGET N_CTX

Needs torch, transformers, onnx and onnxruntime; `benches.peers` calls it with a Python that has
them.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OPSET = 17

QUANTIZED = {"int8": False, "int8-per-channel": True}
"""onnxruntime's dynamic quantization as it is by default, and with a scale for each column."""


def export(folder: Path, target: Path) -> None:
    """Write the graph as torch traces it: inputs of any size, the last layer's rows out.

    The exporter by tracing is taken because its graph is the one whose attention onnxruntime's
    optimizer knows how to fuse.
    """
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()

    class LastHiddenState(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(INPUTS, inputs, strict=True))).last_hidden_state

    ids = torch.arange(1000, 1016).reshape(2, 8)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    torch.onnx.export(
        LastHiddenState().eval(),
        (ids, mask, torch.zeros_like(ids)),
        str(target),
        input_names=list(INPUTS),
        output_names=["last_hidden_state"],
        dynamic_axes={
            name: {0: "n_texts", 1: "n_tokens"} for name in (*INPUTS, "last_hidden_state")
        },
        opset_version=OPSET,
        dynamo=False,
    )


def fuse(plain: Path, target: Path, config: dict[str, Any]) -> None:
    """Fuse attention, normalisation and activation into onnxruntime's own operations.

    Raises:
        RuntimeError: The attention was not fused in every layer; the peer would be slower than
            what is published.
    """
    from onnxruntime.transformers.optimizer import optimize_model

    optimized = optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    fused = optimized.get_fused_operator_statistics()
    if fused["Attention"] != config["num_hidden_layers"]:
        raise RuntimeError(
            f"{fused['Attention']} of {config['num_hidden_layers']} attentions were fused: these "
            "versions of torch, transformers and onnxruntime do not go together"
        )
    optimized.save_model_to_file(str(target))


def quantize(fused: Path, target: Path, *, per_channel: bool) -> None:
    """Write the weights as int8; activations are quantized as they come."""
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        fused,
        target,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        # the optimizer's own operations tell the quantizer no types
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


def copy_tokenizer(folder: Path, target: Path, n_ctx: int) -> None:
    """Copy what fastembed reads, without the shorter limit that would cut texts."""
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / name)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings |= {"model_max_length": n_ctx, "max_length": n_ctx}
    (target / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def main() -> None:
    warnings.simplefilter("ignore")  # tracing warns of each Python value in the model's code
    folder, target, n_ctx = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    plain = target / "plain.onnx"
    export(folder, plain)
    fuse(plain, target / "float32.onnx", config)
    plain.unlink()
    for name, per_channel in QUANTIZED.items():
        quantize(target / "float32.onnx", target / f"{name}.onnx", per_channel=per_channel)
    copy_tokenizer(folder, target, n_ctx)


if __name__ == "__main__":
    main()

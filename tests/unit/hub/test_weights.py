import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from embellama.errors import ConversionError
from embellama.hub.convert import convert_folder
from tests.tiny_bert import CONFIG, random_weights, tensors_of, write_json


def test_shards_give_the_same_file(folder, target, tmp_path):
    whole = convert_folder(folder, tmp_path / "whole.gguf").path
    (folder / "model.safetensors").unlink()
    write_shards(folder)
    convert_folder(folder, target)
    ours, theirs = tensors_of(target), tensors_of(whole)
    assert set(ours) == set(theirs)
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def write_shards(folder: Path) -> None:
    names = sorted(random_weights())
    shards = {"model-1.safetensors": names[:9], "model-2.safetensors": names[9:]}
    for shard, held in shards.items():
        save_file({name: random_weights()[name] for name in held}, folder / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def test_a_missing_shard_is_named(folder, target):
    (folder / "model.safetensors").unlink()
    write_shards(folder)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(ConversionError, match=r"1 of 2 weight files.*model-2\.safetensors"):
        convert_folder(folder, target)


def test_a_shard_without_its_tensors_is_refused(folder, target):
    (folder / "model.safetensors").unlink()
    write_shards(folder)
    save_file({"pooler.dense.bias": np.zeros(64, np.float32)}, folder / "model-2.safetensors")
    with pytest.raises(ConversionError, match="in none of its files"):
        convert_folder(folder, target)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ({"weight_map": {"a": "../../other.safetensors"}}, "outside its folder"),
        ([], "holds a list, not a JSON object"),
    ],
)
def test_a_bad_index_is_refused(folder, target, index, message):
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", index)
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)


def test_names_of_old_checkpoints(folder, target):
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in random_weights().items()
    }
    renamed["bert.embeddings.position_ids"] = np.arange(16)
    renamed["cls.predictions.bias"] = np.zeros(11, np.float32)
    save_file(renamed, folder / "model.safetensors")
    write_json(folder / "config.json", CONFIG | {"architectures": ["BertForMaskedLM"]})
    convert_folder(folder, target, file_type="F32")
    np.testing.assert_array_equal(
        tensors_of(target)["blk.0.layer_output_norm.weight"],
        random_weights()["encoder.layer.0.output.LayerNorm.weight"],
    )


def as_bfloat16(weights: dict[str, np.ndarray], path: Path) -> None:
    """Write bfloat16, which numpy has no type for: the upper halves of float32."""
    header, data = {}, b""
    for name, tensor in weights.items():
        raw = (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2").tobytes()
        span = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": span}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("file_type", ["F32", "BF16"])
def test_bfloat16_weights(folder, target, file_type):
    weights = random_weights()
    as_bfloat16(weights, folder / "model.safetensors")
    convert_folder(folder, target, file_type=file_type)
    name = "encoder.layer.0.output.dense.weight"
    expected = (weights[name].view(np.uint32) & 0xFFFF0000).view(np.float32)
    np.testing.assert_array_equal(tensors_of(target)["blk.0.ffn_down.weight"], expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_weights_of_other_precisions(folder, target, dtype):
    weights = {name: tensor.astype(dtype) for name, tensor in random_weights().items()}
    save_file(weights, folder / "model.safetensors")
    convert_folder(folder, target, file_type="F32")
    expected = weights["embeddings.word_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(tensors_of(target)["token_embd.weight"], expected)


def changed(**tensors: np.ndarray | None) -> dict[str, np.ndarray]:
    """Change the query of layer 0 (``query``), or add a tensor of any other name."""
    weights = random_weights()
    for name, tensor in tensors.items():
        key = "encoder.layer.0.attention.self.query.weight" if name == "query" else name
        weights.pop(key, None)
        if tensor is not None:
            weights[key] = tensor
    return weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(query=None), r"1 tensors are missing.*'encoder\.layer\.0\.attention\.self\.query"),
        (changed(query=np.zeros((64, 63), np.float32)), r"shape \(64, 63\).*asks for \(64, 64\)"),
        (changed(query=np.zeros((64, 64), np.int8)), "is I8; F32, F16, BF16 and F64"),
        (changed(query=np.full((64, 64), np.nan, np.float32)), "NaN or infinite"),
        (changed(query=np.full((64, 64), 1e6, np.float32)), r"up to 1e\+06, over F16's 65,504"),
        (changed(surprise=np.zeros(3, np.float32)), "hold 'surprise'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, target, weights, message):
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)
    assert not target.exists()


@pytest.mark.parametrize("length", [0, 5, 100, -1000])
def test_damaged_safetensors_are_refused(folder, target, length):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ConversionError, match=r"damaged or cut off.*download it again"):
        convert_folder(folder, target)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnx/model.onnx", "only ONNX.*get the model's model.safetensors"),
        ("tf_model.h5", "only TensorFlow"),
        ("README.md", "put model.safetensors"),
    ],
)
def test_folders_without_weights_say_the_way_out(folder, target, name, message):
    (folder / "model.safetensors").unlink()
    write_json(folder / name, {})
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)


def test_weights_that_shrink_while_they_are_read(folder, target):
    path = folder / "model.safetensors"

    def shrink(done: int, total: int) -> None:
        path.write_bytes(path.read_bytes()[:500])

    with pytest.raises(ConversionError, match="became shorter while it was read"):
        convert_folder(folder, target, progress=shrink)
    assert not target.exists()


def test_weights_that_vanish_while_they_are_read(folder, target):
    path = folder / "model.safetensors"
    with pytest.raises(ConversionError, match=r"model\.safetensors' cannot be read"):
        convert_folder(folder, target, progress=lambda done, total: path.unlink())

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest

from embellama.errors import ConversionError, MissingDependencyError
from embellama.hub.convert import convert_folder
from tests.tiny_bert import random_weights, write_folder

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch: pip install embellama[torch]")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_folder(tmp_path / "tiny-bert")
    (made / "model.safetensors").unlink()
    return made


@pytest.mark.skipif(HAS_TORCH, reason="needs an environment without torch")
def test_without_torch_the_error_names_the_extra(folder, tmp_path):
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(MissingDependencyError, match=r"embellama\[torch\]") as caught:
        convert_folder(folder, tmp_path / "m.gguf")
    assert caught.value.extra == "torch"


@needs_torch
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_checkpoint_gives_the_same_as_safetensors(folder, tmp_path, zipped, dtype):
    import torch

    state = {
        name: torch.from_numpy(tensor).to(getattr(torch, dtype))
        for name, tensor in random_weights().items()
    }
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    convert_folder(folder, tmp_path / "bin.gguf", file_type="F32")
    rounded = {name: tensor.float().numpy() for name, tensor in state.items()}
    write_folder(tmp_path / "other", weights=rounded)
    convert_folder(tmp_path / "other", tmp_path / "st.gguf", file_type="F32", name="tiny-bert")
    assert (tmp_path / "bin.gguf").read_bytes() == (tmp_path / "st.gguf").read_bytes()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@needs_torch
@pytest.mark.parametrize("write", ["torch", "pickle", "noise"])
def test_nothing_but_weights_is_loaded(folder, tmp_path, write):
    import torch

    path, witness = folder / "pytorch_model.bin", tmp_path / "code-ran"
    payload = {"weight": Payload(witness)}
    if write == "torch":
        torch.save(payload, path)
    else:
        path.write_bytes(pickle.dumps(payload, protocol=2) if write == "pickle" else b"noise" * 100)
    with pytest.raises(ConversionError, match=r"damaged, or holds more than weights"):
        convert_folder(folder, tmp_path / "m.gguf")
    assert not witness.exists()


@needs_torch
def test_a_checkpoint_of_something_else(folder, tmp_path):
    import torch

    torch.save(torch.from_numpy(np.zeros(3)), folder / "pytorch_model.bin")
    with pytest.raises(ConversionError, match="holds a Tensor, not named tensors"):
        convert_folder(folder, tmp_path / "m.gguf")

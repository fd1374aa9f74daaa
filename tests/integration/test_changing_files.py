"""Model files that change under the engine: what is loaded is what its fingerprint says."""

import os
import time

import pytest

from embellama import EmbeddingEngine, ModelLoadError
from embellama._llama.model import LlamaBackend
from tests.conftest import QUIET
from tests.tiny_decoder import write_decoder


def test_another_part_that_changed_is_loaded_anew_under_the_same_name(tmp_path):
    write_decoder(tmp_path / "split.gguf", tensors_a_part=8)
    first, *others = sorted(tmp_path.glob("split-*.gguf"))
    with EmbeddingEngine() as engine:
        before = engine.load_model(first, name="m", config=QUIET)
        assert engine.load_model(first, name="m", config=QUIET).fingerprint == before.fingerprint
        data = others[-1].read_bytes()
        time.sleep(0.02)  # a tick of the file system's clock
        others[-1].write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        after = engine.load_model(first, name="m", config=QUIET)
    assert after.fingerprint != before.fingerprint


@pytest.mark.skipif(os.name == "nt", reason="needs a file that can be replaced while it is open")
def test_a_file_replaced_while_it_is_loaded_is_refused(tiny_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())

    class ReplacedMeanwhile(LlamaBackend):
        def load(self, metadata, config, pooling_type):
            model = super().load(metadata, config, pooling_type)
            newer = tmp_path / "newer.gguf"
            newer.write_bytes(tiny_path.read_bytes())
            newer.replace(path)
            return model

    with EmbeddingEngine(backend=ReplacedMeanwhile()) as engine:
        with pytest.raises(ModelLoadError, match="changed while it was loaded; load it again"):
            engine.load_model(path, name="m", config=QUIET)
        assert engine.list_models() == []

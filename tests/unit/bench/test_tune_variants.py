import numpy as np
import psutil
import pytest

from embellama.backends import ChosenBackend
from embellama.bench import tune_variants
from embellama.bench.tune_speed import Variant
from embellama.bench.tune_variants import TYPES, Variants
from embellama.config import ModelConfig
from embellama.errors import ConversionError, ModelLoadError
from embellama.gguf import read_metadata
from embellama.testing import FakeBackend


class Backend(FakeBackend):
    """Remembers what it loaded; the rows tell F32 from the others."""

    def __init__(self):
        super().__init__()
        self.loaded = []

    def load(self, metadata, config, pooling_type):
        self.loaded.append((metadata.file_type, config.flash_attn))
        turned = metadata.file_type == "F16"

        def rows(batch):
            row = [0.0, 2.0] if turned else [1.0, 0.0]
            return np.tile(np.float32(row), (batch.n_sequences, 1))

        self._compute = rows
        return super().load(metadata, config, pooling_type)


@pytest.fixture
def backend():
    return Backend()


def variants_of(path, backend, folder, *, pooling_type="mean", **config):
    metadata = read_metadata(path)
    return Variants(metadata, ModelConfig(**config), pooling_type, backend=backend, folder=folder)


def test_every_other_type_and_attention_is_tried(tiny_path, backend, tmp_path):
    variants = variants_of(tiny_path, backend, tmp_path)
    assert variants.own == Variant()
    others = variants.others()
    assert {one.file_type for one in others} == {None, *TYPES} - {"F32"}
    assert {one.flash_attn for one in others if one.file_type is None} == {True, False}
    fused = variants_of(tiny_path, backend, tmp_path, flash_attn=True)
    assert Variant(flash_attn=True) == fused.own
    assert [one for one in fused.others() if one.file_type is None] == [Variant(flash_attn=False)]


def test_types_are_made_and_loaded_once(tiny_path, backend, tmp_path):
    variants = variants_of(tiny_path, backend, tmp_path)
    there, missing = variants.ready(variants.others())
    assert (there, missing) == (variants.others(), {})
    variants.model(Variant("BF16"))
    assert backend.loaded == [
        ("F32", "auto"),
        ("F32", True),
        ("F32", False),
        ("F16", "auto"),
        ("BF16", "auto"),
        ("Q8_0", "auto"),
        ("Q4_0", "auto"),
    ]
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{kind}.gguf" for kind in TYPES if kind != "F32"
    }
    variants.close()
    assert all(model.closed for model in backend.models)


def test_what_cannot_be_made_or_loaded_is_told(tiny_path, backend, tmp_path, monkeypatch):
    def quantize(source, target, file_type, **options):
        if file_type == "Q8_0":
            raise ConversionError("no room")
        return real(source, target, file_type, **options)

    real = tune_variants.quantize_file
    monkeypatch.setattr(tune_variants, "quantize_file", quantize)
    load = backend.load

    def refuse(metadata, config, pooling_type):
        if metadata.file_type == "BF16":
            raise ModelLoadError("refused")
        return load(metadata, config, pooling_type)

    backend.load = refuse
    variants = variants_of(tiny_path, backend, tmp_path)
    there, missing = variants.ready(variants.others())
    assert missing == {Variant("Q8_0"): "no room", Variant("BF16"): "refused"}
    assert len(there) == 4


def test_without_memory_for_another_type_it_is_left_out(tiny_path, backend, tmp_path, monkeypatch):
    class Memory:
        available = 1000

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    variants = variants_of(tiny_path, backend, tmp_path)
    _, missing = variants.ready([Variant("F16")])
    assert "free" in missing[Variant("F16")]


def test_fidelity_is_the_worst_cosine(tiny_path, backend, tmp_path):
    variants = variants_of(tiny_path, backend, tmp_path)
    assert variants.least_cosine(Variant("BF16")) == pytest.approx(1.0)
    assert variants.least_cosine(Variant("F16")) == pytest.approx(0.0)
    assert all(context.closed for model in backend.models for context in model.contexts)


def test_scores_have_no_cosine(tiny_path, backend, tmp_path):
    variants = variants_of(tiny_path, backend, tmp_path, pooling_type="rank")
    assert variants.least_cosine(Variant("BF16")) is None


def test_native_kernels_have_one_kind_of_attention(tiny_path, tmp_path, native_kernels):
    metadata, config = read_metadata(tiny_path), ModelConfig(backend="native")
    variants = Variants(metadata, config, "mean", backend=ChosenBackend(), folder=tmp_path)
    try:
        assert variants.is_native
        assert {one.file_type for one in variants.others()} == {*TYPES} - {"F32"}
        there, missing = variants.ready([Variant("BF16"), Variant("Q4_0")])
        assert there == [Variant("BF16")]
        assert "Q4_0" in missing[Variant("Q4_0")]
    finally:
        variants.close()

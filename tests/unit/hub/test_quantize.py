import numpy as np
import pytest

from embellama import EmbeddingEngine
from embellama.errors import ConversionError, GGUFFormatError, ModelNotFoundError
from embellama.gguf import read_metadata
from embellama.hub.convert import convert_folder
from embellama.hub.quantize import quantize_file


@pytest.fixture
def source(folder, target):
    return convert_folder(folder, target, file_type="F32").path


@pytest.mark.parametrize("file_type", ["Q8_0", "f16", "BF16", "Q4_0"])
def test_the_report_tells_the_types_the_tensors_really_got(source, tmp_path, file_type):
    report = quantize_file(source, tmp_path / "q.gguf", file_type, n_threads=1)
    metadata = read_metadata(report.path)
    assert report.file_type == file_type.upper() == metadata.file_type
    assert report.tensor_types == metadata.tensor_types
    assert report.size_bytes == report.path.stat().st_size < report.source_bytes
    with EmbeddingEngine() as engine:
        engine.load_model(source, name="source")
        engine.load_model(report.path, name="quantized")
        cosine = engine.embed("source", "a c") @ engine.embed("quantized", "a c")
    assert cosine > 0.9


def test_rows_a_type_cannot_divide_fall_back_and_the_report_says_so(source, tmp_path):
    report = quantize_file(source, tmp_path / "q.gguf", "Q4_K_M", n_threads=1)
    assert "Q4_K" not in report.tensor_types  # 64 wide; its blocks are 256
    assert sum(report.tensor_types.values()) == 37


@pytest.mark.parametrize(
    ("file_type", "said"), [("Q9", "not a file type"), ("IQ2_XS", "importance matrix")]
)
def test_a_type_that_cannot_be_made(source, tmp_path, file_type, said):
    with pytest.raises(ConversionError, match=said):
        quantize_file(source, tmp_path / "q.gguf", file_type)
    assert not list(tmp_path.glob("*q.gguf*"))


def test_quantizing_twice_has_to_be_allowed(source, tmp_path):
    once = quantize_file(source, tmp_path / "once.gguf", "Q8_0").path
    with pytest.raises(ConversionError, match="is Q8_0 already"):
        quantize_file(once, tmp_path / "twice.gguf", "Q4_0")
    assert quantize_file(once, tmp_path / "twice.gguf", "Q4_0", requantize=True).size_bytes > 0


def test_sources_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"no")
    with pytest.raises(GGUFFormatError):
        quantize_file(tmp_path / "bad.gguf", tmp_path / "q.gguf", "Q8_0")
    with pytest.raises(ModelNotFoundError):
        quantize_file(tmp_path / "none.gguf", tmp_path / "q.gguf", "Q8_0")


def test_a_target_that_is_a_folder(source, tmp_path):
    with pytest.raises(ConversionError, match="is a folder"):
        quantize_file(source, tmp_path, "Q8_0")


def test_llama_cpps_own_refusal_is_told_and_leaves_no_file(source, tmp_path, monkeypatch):
    from embellama._llama import quantize

    monkeypatch.setattr(quantize, "run_quantize", lambda *args, **kwargs: ("failed to write",))
    with pytest.raises(ConversionError, match="failed to write"):
        quantize_file(source, tmp_path / "q.gguf", "Q8_0")
    assert not list(tmp_path.glob("*q.gguf*"))


def test_vectors_of_minilm_survive_q8_0(minilm_path, engine, tmp_path):
    path = quantize_file(minilm_path, tmp_path / "q.gguf", "Q8_0").path
    with EmbeddingEngine() as other:
        other.load_model(path, name="q")
        text = "a man is holding a red bicycle near the station"
        assert np.dot(other.embed("q", text), engine.embed("minilm", text)) > 0.998

import numpy as np
import pytest

from embellama import EmbeddingEngine
from embellama.errors import ConversionError, GGUFFormatError, ModelNotFoundError
from embellama.gguf import read_metadata
from embellama.gguf_header import read_header
from embellama.hub import quantize
from embellama.hub.convert import convert_folder
from embellama.hub.quantize import quantize_file
from tests.tiny_bert import write_folder


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


@pytest.fixture
def wide(tmp_path):
    """Write a BERT with rows of 256, which no type has to fall back for."""
    folder = write_folder(tmp_path / "wide", hidden_size=256, intermediate_size=512)
    return convert_folder(folder, tmp_path / "wide.gguf", file_type="F32").path


@pytest.mark.parametrize("file_type", ["IQ2_M", "IQ3_XS", "IQ3_XXS"])
def test_types_that_need_an_importance_matrix_for_some_rows(source, wide, tmp_path, file_type):
    assert quantize_file(source, tmp_path / "q.gguf", file_type).file_type == file_type
    with pytest.raises(ConversionError, match=f"{file_type} needs an importance matrix.* IQ3_S or"):
        quantize_file(wide, tmp_path / "wide-q.gguf", file_type)
    assert not list(tmp_path.glob("*wide-q.gguf*"))


@pytest.mark.parametrize("file_type", ["Q2_K", "IQ3_S"])
def test_types_that_are_recommended_instead_can_be_made(wide, tmp_path, file_type):
    report = quantize_file(wide, tmp_path / "q.gguf", file_type)
    assert set(report.tensor_types) & {"Q2_K", "IQ3_S"}


def with_weight(path, name, value):
    """Set the first weight of a tensor."""
    tensor = next(tensor for tensor in read_header(path).tensors if tensor.name == name)
    kind = {"F32": "<f4", "BF16": "<u2"}[tensor.type_name]
    raw = np.array(np.float32(value).view("<u4") >> 16 if kind == "<u2" else value, kind).tobytes()
    with path.open("r+b") as file:
        file.seek(tensor.offset)
        file.write(raw)


@pytest.mark.parametrize("value", [3e38, -3e38, 1e6, np.inf, np.nan])
@pytest.mark.parametrize("source_type", ["F32", "BF16"])
def test_weights_that_are_no_weights(folder, tmp_path, monkeypatch, source_type, value):
    monkeypatch.setattr(quantize, "_CHUNK_BYTES", 1000)
    source = convert_folder(folder, tmp_path / "m.gguf", file_type=source_type).path
    with_weight(source, "blk.1.ffn_up.weight", value)
    with pytest.raises(ConversionError, match=r"blk.1.ffn_up.weight has weights up to"):
        quantize_file(source, tmp_path / "q.gguf", "IQ3_S")


def test_weights_as_large_as_block_scales_get(wide, tmp_path):
    with_weight(wide, "blk.1.ffn_up.weight", 65_504)
    assert quantize_file(wide, tmp_path / "q.gguf", "IQ3_S").tensor_types["IQ3_S"] > 1


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
    from embellama._llama import quantize as native

    monkeypatch.setattr(native, "run_quantize", lambda *args, **kwargs: ("failed to write",))
    with pytest.raises(ConversionError, match="failed to write"):
        quantize_file(source, tmp_path / "q.gguf", "Q8_0")
    assert not list(tmp_path.glob("*q.gguf*"))


def test_vectors_of_minilm_survive_q8_0(minilm_path, engine, tmp_path):
    path = quantize_file(minilm_path, tmp_path / "q.gguf", "Q8_0").path
    with EmbeddingEngine() as other:
        other.load_model(path, name="q")
        text = "a man is holding a red bicycle near the station"
        assert np.dot(other.embed("q", text), engine.embed("minilm", text)) > 0.998

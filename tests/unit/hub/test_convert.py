import os
import tracemalloc

import numpy as np
import pytest
from gguf import GGUFReader
from structlog.testing import capture_logs

from embellama.errors import ConversionError
from embellama.gguf import read_metadata
from embellama.hub import convert
from embellama.hub.convert import convert_folder
from embellama.hub.quantize import quantize_file
from tests.tiny_bert import SPELT, random_weights, tensors_of, types_of, value_of, write_folder


def test_f32_keeps_every_weight(folder, target):
    convert_folder(folder, target, file_type="F32")
    weights, found = random_weights(), tensors_of(target)
    assert len(found) == 5 + 2 * 16
    for source, name in {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.position_embeddings.weight": "position_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "embeddings.LayerNorm.bias": "token_embd_norm.bias",
        "encoder.layer.0.attention.self.query.weight": "blk.0.attn_q.weight",
        "encoder.layer.0.attention.self.key.bias": "blk.0.attn_k.bias",
        "encoder.layer.1.attention.self.value.weight": "blk.1.attn_v.weight",
        "encoder.layer.1.attention.output.dense.weight": "blk.1.attn_output.weight",
        "encoder.layer.1.attention.output.LayerNorm.weight": "blk.1.attn_output_norm.weight",
        "encoder.layer.0.intermediate.dense.weight": "blk.0.ffn_up.weight",
        "encoder.layer.0.output.dense.weight": "blk.0.ffn_down.weight",
        "encoder.layer.1.output.LayerNorm.bias": "blk.1.layer_output_norm.bias",
    }.items():
        np.testing.assert_array_equal(found[name], weights[source], err_msg=name)


def test_tensors_are_in_the_order_of_their_source_names(folder, target):
    convert_folder(folder, target)
    assert list(types_of(target))[:8] == [
        "token_embd_norm.bias",
        "token_embd_norm.weight",
        "position_embd.weight",
        "token_types.weight",
        "token_embd.weight",
        "blk.0.attn_output_norm.bias",
        "blk.0.attn_output_norm.weight",
        "blk.0.attn_output.bias",
    ]


@pytest.mark.parametrize(
    ("file_type", "tolerance"), [("F16", 1e-3), ("BF16", 8e-3), ("Q8_0", 8e-3), ("q8_0", 8e-3)]
)
def test_matrices_get_the_type_and_the_delicate_tensors_stay_f32(
    folder, target, file_type, tolerance
):
    report = convert_folder(folder, target, file_type=file_type)
    kind = file_type.upper()
    types = types_of(target)
    matrices = {name for name, found in types.items() if found == kind}
    assert matrices == {"token_embd.weight"} | {
        f"blk.{layer}.{name}.weight"
        for layer in range(2)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
    }
    assert set(types.values()) == {"F32", kind}
    assert report.tensor_types == {"F32": 24, kind: 13}
    assert (report.path, report.file_type, report.n_tensors) == (target, kind, 37)
    assert report.size_bytes == target.stat().st_size
    assert report.duration_s > 0
    np.testing.assert_allclose(
        tensors_of(target)["blk.1.ffn_up.weight"],
        random_weights()["encoder.layer.1.intermediate.dense.weight"],
        atol=tolerance,
    )


def test_rows_that_q8_0_cannot_hold_become_f16(tmp_path, target):
    write_folder(tmp_path / "m", hidden_size=48)
    report = convert_folder(tmp_path / "m", target, file_type="Q8_0")
    assert report.tensor_types == {"F32": 24, "F16": 11, "Q8_0": 2}
    assert types_of(target)["blk.0.ffn_down.weight"] == "Q8_0"
    assert read_metadata(target).file_type == "Q8_0"


def test_metadata(folder, target):
    convert_folder(folder, target)
    found = read_metadata(target)
    assert (found.architecture, found.name, found.file_type) == ("bert", "tiny-bert", "F16")
    assert (found.n_embd, found.n_ctx_train, found.n_layer, found.n_head) == (64, 16, 2, 4)
    assert (found.pooling_type, found.causal) == ("mean", False)
    assert (found.vocab_kind, found.n_vocab) == ("bert", 11)
    assert (found.add_bos, found.add_eos, found.add_sep) == (True, True, False)
    assert (found.bos_token_id, found.eos_token_id, found.sep_token_id) == (2, 3, 3)
    assert (found.unk_token_id, found.lowercase, found.strip_accents) == (1, True, None)
    assert found.position_encoding == "absolute"
    assert value_of(target, "bert.feed_forward_length") == 96
    assert value_of(target, "bert.attention.layer_norm_epsilon") == pytest.approx(1e-12)
    assert value_of(target, "tokenizer.ggml.token_type_count") == 2
    assert value_of(target, "tokenizer.ggml.padding_token_id") == 0
    assert value_of(target, "tokenizer.ggml.mask_token_id") == 4
    assert value_of(target, "general.quantization_version") == 2


def test_a_name_can_be_given(folder, target):
    convert_folder(folder, target, name="all-MiniLM")
    assert read_metadata(target).name == "all-MiniLM"


def test_names_that_are_no_text(folder, tmp_path):
    source = folder.rename(tmp_path / os.fsdecode(b"f\xff"))
    report = convert_folder(source, tmp_path / os.fsdecode(b"m\xfe.gguf"), file_type="F32")
    assert read_metadata(report.path).name == r"f\udcff"
    smaller = quantize_file(report.path, tmp_path / os.fsdecode(b"q\xfd.gguf"), "Q8_0")
    assert (tmp_path / os.fsdecode(b"q\xfd.gguf")).stat().st_size == smaller.size_bytes


def test_the_conversion_is_logged(folder, target):
    with capture_logs() as logs:
        report = convert_folder(folder, target, file_type="BF16", name="m")
    assert logs == [
        {
            "event": "embellama.model.converted",
            "log_level": "info",
            "model": "m",
            "path": str(target),
            "file_type": "BF16",
            "n_tensors": 37,
            "size_bytes": report.size_bytes,
            "duration_s": report.duration_s,
        }
    ]


def test_progress_counts_tensor_bytes(folder, target, monkeypatch):
    monkeypatch.setattr(convert, "CHUNK_BYTES", 1000)
    calls = []
    convert_folder(folder, target, progress=lambda done, total: calls.append((done, total)))
    done, totals = [call[0] for call in calls], {call[1] for call in calls}
    assert done == sorted(set(done))
    assert totals == {read_metadata(target).tensor_bytes} == {done[-1]}


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16", "Q8_0"])
def test_chunks_do_not_show(folder, tmp_path, monkeypatch, file_type):
    convert_folder(folder, tmp_path / "whole.gguf", file_type=file_type)
    monkeypatch.setattr(convert, "CHUNK_BYTES", 700)
    convert_folder(folder, tmp_path / "chunked.gguf", file_type=file_type)
    assert (tmp_path / "chunked.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_memory_is_some_chunks_and_not_the_model(tmp_path, target, monkeypatch):
    monkeypatch.setattr(convert, "CHUNK_BYTES", 1 << 16)
    write_folder(tmp_path / "m", hidden_size=768, intermediate_size=3072)
    tracemalloc.start()
    convert_folder(tmp_path / "m", target, file_type="Q8_0")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "m" / "model.safetensors").stat().st_size > 50 << 20
    assert peak < 8 << 20


@pytest.mark.parametrize("file_type", ["Q4_K_M", "", "F8"])
def test_other_file_types_are_refused(folder, target, file_type):
    with pytest.raises(ConversionError, match=r"convert to F32, F16, BF16, Q8_0.*quantize"):
        convert_folder(folder, target, file_type=file_type)


def test_the_vocabulary_is_spelt_as_llama_cpp_wants_it(folder, target):
    convert_folder(folder, target)
    assert value_of(target, "tokenizer.ggml.tokens") == SPELT
    assert value_of(target, "tokenizer.ggml.token_type") == [3] * 5 + [1] * 6
    assert value_of(target, "tokenizer.ggml.pre") == "default"


def test_q8_0_is_the_reference_implementation(folder, target):
    convert_folder(folder, target, file_type="Q8_0")
    (raw,) = (t.data for t in GGUFReader(target).tensors if t.name == "blk.0.attn_q.weight")
    block = random_weights()["encoder.layer.0.attention.self.query.weight"][0, :32]
    scale = np.float32(np.abs(block).max()) / np.float32(127)
    assert raw[0, :2].view(np.float16)[0] == np.float16(scale)
    np.testing.assert_allclose(raw[0, 2:34].view(np.int8), block / scale, atol=0.501)
    assert raw.shape == (64, 64 // 32 * 34)

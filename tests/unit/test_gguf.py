import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from embellama.errors import GGUFFormatError, ModelNotFoundError
from embellama.gguf import read_metadata
from embellama.gguf_header import MAX_STRINGS, read_header
from tests.tiny_gguf import TOKENS, with_value, without, write_gguf


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf")


def patched(path: Path, offset: int, raw: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(raw)] = raw
    path.write_bytes(data)
    return path


def test_every_field_of_a_bert(tiny):
    found = read_metadata(tiny)
    assert (found.path, found.paths) == (tiny, (tiny,))
    assert (found.architecture, found.name) == ("bert", "tiny")
    assert (found.n_embd, found.n_ctx_train, found.n_layer, found.n_head) == (8, 16, 1, 2)
    assert (found.pooling_type, found.causal) == ("mean", False)
    assert (found.vocab_kind, found.n_vocab) == ("bert", len(TOKENS))
    assert (found.add_bos, found.add_eos, found.add_sep) == (True, True, False)
    assert (found.bos_token_id, found.eos_token_id) == (2, 3)
    assert (found.sep_token_id, found.unk_token_id) == (3, 1)
    assert (found.lowercase, found.strip_accents) == (True, None)
    assert (found.position_encoding, found.file_type) == ("absolute", "F16")
    assert found.tensor_types == {"F32": 2, "F16": 1}
    assert found.tensor_bytes == len(TOKENS) * 8 * 2 + 16 * 8 * 4 + 8 * 4
    assert found.size_bytes == tiny.stat().st_size
    assert found.is_embedder


def test_tensors_lie_where_the_header_says(tiny):
    table, positions, _ = read_header(tiny).tensors
    assert (table.name, table.shape, table.type_name) == ("token_embd.weight", (8, 7), "F16")
    raw = tiny.read_bytes()[positions.offset : positions.offset + positions.size_bytes]
    assert np.array_equal(np.frombuffer(raw, np.float32), np.ones(16 * 8, np.float32))


@pytest.mark.parametrize(
    ("number", "pooling_type"),
    [(0, "none"), (1, "mean"), (2, "cls"), (3, "last"), (4, "rank"), (0xFFFFFFFF, None)],
)
def test_pooling_types(tmp_path, number, pooling_type):
    path = write_gguf(tmp_path / "m.gguf", with_value("bert.pooling_type", number))
    assert read_metadata(path).pooling_type == pooling_type


def test_what_a_file_does_not_say_is_none(tmp_path):
    path = write_gguf(
        tmp_path / "m.gguf",
        without(
            "general.name",
            "general.file_type",
            "bert.pooling_type",
            "bert.attention.causal",
            "tokenizer.ggml.add_bos_token",
            "tokenizer.ggml.eos_token_id",
            "tokenizer.ggml.normalizer.lowercase",
        ),
    )
    found = read_metadata(path)
    assert (found.name, found.file_type) == ("m", "F32")
    assert (found.pooling_type, found.causal, found.add_bos) == (None, None, None)
    assert (found.eos_token_id, found.lowercase) == (None, None)
    assert found.is_embedder, "a known embedding architecture"


def test_a_generating_model_is_no_embedder(tmp_path):
    def change(writer: GGUFWriter) -> None:
        without("qwen3.pooling_type", "qwen3.attention.causal")(writer)
        writer.add_array("qwen3.attention.head_count", [4, 8])
        writer.add_tokenizer_model("gpt2")
        with_value("general.file_type", 15)(writer)

    def tensors(writer: GGUFWriter) -> None:
        writer.add_tensor("token_embd.weight", np.ones((len(TOKENS), 8), np.float32))

    found = read_metadata(write_gguf(tmp_path / "m.gguf", change, arch="qwen3", tensors=tensors))
    assert not found.is_embedder
    assert (found.position_encoding, found.vocab_kind) == ("rope", "gpt2")
    assert (found.n_head, found.file_type) == (8, "Q4_K_M")


def test_alibi_and_relative_positions(tmp_path):
    def biased(writer: GGUFWriter) -> None:
        writer.add_max_alibi_bias(8.0)

    encodings = {
        arch: read_metadata(write_gguf(tmp_path / f"{arch}.gguf", change, arch=arch))
        for arch, change in {"jina-bert-v2": None, "mpt": biased, "t5encoder": None}.items()
    }
    assert {arch: found.position_encoding for arch, found in encodings.items()} == {
        "jina-bert-v2": "alibi",
        "mpt": "alibi",
        "t5encoder": "relative",
    }


def test_a_token_id_outside_the_vocabulary_is_none_as_in_llama_cpp(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", with_value("tokenizer.ggml.eos_token_id", 7))
    assert read_metadata(path).eos_token_id is None


def test_empty_tokens_are_different_ones(tmp_path):
    tokens = [*TOKENS[:-3], "", "", "b\0"]
    path = write_gguf(tmp_path / "m.gguf", with_value("tokenizer.ggml.tokens", tokens))
    assert read_metadata(path).n_vocab == 7


def test_a_large_vocabulary_is_stepped_over(tmp_path):
    def large(writer: GGUFWriter) -> None:
        writer.add_token_list([f"▁{n}" for n in range(250_000)])
        writer.add_token_types([1] * 250_000)

    header = read_header(write_gguf(tmp_path / "m.gguf", large))
    assert header.values["tokenizer.ggml.tokens"].length == 250_000
    assert header.values["tokenizer.ggml.token_type"].items == ()


# Files that are not there


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.gguf", "no model file .*absent.gguf.*check the path"),
        ("", "is a folder; name the file in it: tiny.gguf"),
        ("x" * 300 + ".gguf", "cannot be read|no model file"),
    ],
)
def test_missing_files_say_what_to_do(tiny, name, message):
    with pytest.raises(ModelNotFoundError, match=message):
        read_metadata(tiny.parent / name)


@pytest.mark.parametrize("name", ["a\0b.gguf", "\udcff.gguf", f"{'d' * 300}/m.gguf"])
def test_paths_that_no_file_can_have_are_not_found(tmp_path, name):
    with pytest.raises(ModelNotFoundError) as caught:
        read_metadata(tmp_path / name)
    str(caught.value).encode()


def test_names_that_are_no_text_are_written_as_their_bytes(tmp_path):
    folder = tmp_path / os.fsdecode(b"f\xff")
    folder.mkdir()
    path = write_gguf(folder / os.fsdecode(b"m\xfe.gguf"), without("general.name"))
    found = read_metadata(path)
    assert (found.path, found.name) == (path, r"m\udcfe")
    with pytest.raises(ModelNotFoundError, match=r"name the file in it: m\\udcfe.gguf"):
        read_metadata(folder)
    (folder / "config.json").write_text("{}")
    path.unlink()
    with pytest.raises(ModelNotFoundError, match=r"embellama convert .*f\\udcff model.gguf"):
        read_metadata(folder)


def test_a_folder_without_models_says_so(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"is a folder; name a \.gguf file"):
        read_metadata(tmp_path)


def test_a_transformers_folder_asks_to_be_converted(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="embellama convert"):
        read_metadata(tmp_path)


# Files that are not sound


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are too few"),
        (b"GGUF\x03\0\0\0", "8 bytes are too few"),
        (b"\x89PNG" * 16, "begins with b'.x89PNG'"),
        (b"\0" * 4096, "begins with"),
        (bytes(range(256)) * 16, "begins with"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version is 1"),
        (b"GGUF" + struct.pack("<IQQ", 4, 0, 0), "version is 4"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "claims 9223372036854775808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "claims 1099511627776 key-value pairs"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "holds no model"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 0) + b"\0" * 64, "key '' is empty"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**40) + b"\0" * 64, "over 65535"),
    ],
)
def test_bytes_of_something_else(tmp_path, data, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(GGUFFormatError, match=message):
        read_metadata(path)


def test_every_truncation_is_found(tiny):
    data = tiny.read_bytes()
    for length in range(0, len(data) - 32, 7):
        tiny.write_bytes(data[:length])
        with pytest.raises(GGUFFormatError):
            read_metadata(tiny)


def test_missing_weights_name_the_tensor(tiny):
    data = tiny.read_bytes()
    tiny.write_bytes(data[:-32])
    with pytest.raises(GGUFFormatError, match=r"cut off: tensor 'token_embd_norm\.weight' ends at"):
        read_metadata(tiny)


def repeat_a_token(writer: GGUFWriter) -> None:
    writer.add_token_list([*TOKENS[:-1], TOKENS[-2]])


def cut_a_token_to_another(writer: GGUFWriter) -> None:
    writer.add_token_list([*TOKENS[:-1], f"{TOKENS[-2]}\0more"])


def name_a_token_like_an_empty_one(writer: GGUFWriter) -> None:
    writer.add_token_list([*TOKENS[:-2], "[EMPTY_6]", ""])


def add_bad_rope(writer: GGUFWriter) -> None:
    writer.add_string("bert.rope.scaling.type", "linaer")


def add_too_many_experts(writer: GGUFWriter) -> None:
    writer.add_expert_count(2)
    writer.add_expert_used_count(3)


def make_adapter(writer: GGUFWriter) -> None:
    writer.add_type("adapter")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (repeat_a_token, "7 tokens, but only 6 different"),
        (cut_a_token_to_another, "7 tokens, but only 6 different"),
        (name_a_token_like_an_empty_one, "7 tokens, but only 6 different"),
        (add_bad_rope, "rope scaling 'linaer' is unknown"),
        (add_too_many_experts, "3 of 2 experts"),
        (make_adapter, "holds no model .type 'adapter'"),
        (with_value("bert.block_count", 0), "block_count is 0, and should be 1 to 512"),
        (with_value("bert.block_count", 513), "block_count is 513"),
        (
            with_value("bert.attention.layer_norm_epsilon", -1e-12),
            "epsilon is -1e-12|epsilon is -9",
        ),
        (with_value("bert.attention.layer_norm_epsilon", float("nan")), "epsilon is nan"),
        (with_value("bert.pooling_type", 5), "pooling_type is 5"),
        (without("bert.embedding_length"), "embedding_length is missing"),
        (without("general.architecture"), "holds no model"),
        (without("tokenizer.ggml.bos_token_id"), "no tokenizer.ggml.bos_token_id below 7"),
        (
            with_value("tokenizer.ggml.seperator_token_id", 99),
            "no tokenizer.ggml.seperator_token_id",
        ),
    ],
)
def test_what_would_end_the_process_in_llama_cpp_is_refused(tmp_path, change, message):
    with pytest.raises(GGUFFormatError, match=message):
        read_metadata(write_gguf(tmp_path / "m.gguf", change))


def test_a_value_of_another_type_is_refused(tmp_path):
    def change(writer: GGUFWriter) -> None:
        writer.add_string("bert.attention.causal", "no")

    with pytest.raises(GGUFFormatError, match="causal is 'no', and should be of type bool"):
        read_metadata(write_gguf(tmp_path / "m.gguf", change))


@pytest.mark.parametrize("alignment", [0, 24, 2**31])
def test_a_bad_alignment_is_refused(tmp_path, alignment):
    def change(writer: GGUFWriter) -> None:
        writer.add_uint32("general.alignment", alignment)

    with pytest.raises(GGUFFormatError, match=r"power of two|cut off"):
        read_metadata(write_gguf(tmp_path / "m.gguf", change))


def position_of(path: Path, text: str) -> int:
    """Find the byte after a text."""
    raw = text.encode()
    return path.read_bytes().index(raw) + len(raw)


@pytest.mark.parametrize(
    ("after", "raw", "message"),
    [
        # Behind a tensor's name: dimensions (4 bytes), each size (8), type (4), offset (8).
        ("token_embd.weight", struct.pack("<I", 5), "5 dimensions, over 4"),
        ("token_embd.weight", struct.pack("<IQQI", 2, 8, 7, 999), "unknown type 999"),
        ("token_embd.weight", struct.pack("<IQQI", 2, 8, 7, 8), "rows .* 8 long, not a multiple"),
        ("token_embd.weight", struct.pack("<IQ", 2, 2**63), "cut off"),
        ("position_embd.weight", struct.pack("<IQQIQ", 2, 8, 16, 0, 0), "begins at 0 and not at"),
        # Behind a key: type (4), for arrays the elements' type (4) and the length (8).
        ("tokenizer.ggml.tokens", struct.pack("<I", 13), "unknown type 13"),
        ("tokenizer.ggml.tokens", struct.pack("<II", 9, 9), "elements of unknown type 9"),
        ("tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, 2**60), "claims 1152921504606846976"),
        ("tokenizer.ggml.token_type", struct.pack("<IIQ", 9, 5, 2**30), "claims 1073741824 elem"),
        ("tokenizer.ggml.tokens", struct.pack("<IIQQ", 9, 8, 7, 2**50), "ends within element 0"),
    ],
)
def test_damage_in_one_place(tiny, after, raw, message):
    patched(tiny, position_of(tiny, after), raw)
    with pytest.raises(GGUFFormatError, match=message):
        read_metadata(tiny)


def test_a_name_that_is_no_text(tiny):
    patched(tiny, position_of(tiny, "token_embd.weigh"), b"\xff")
    with pytest.raises(GGUFFormatError, match="is not UTF-8"):
        read_metadata(tiny)


def test_a_tensor_that_is_there_twice(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tensors=add_two_alike)
    patched(path, position_of(path, "blk.0.aa") - 1, b"b")
    with pytest.raises(GGUFFormatError, match=r"'blk\.0\.ab' is there twice"):
        read_metadata(path)


def add_two_alike(writer: GGUFWriter) -> None:
    for name in ("blk.0.aa", "blk.0.ab"):
        writer.add_tensor(name, np.ones(8, np.float32))


def test_an_absurd_number_of_strings_is_refused_before_it_costs_time(tiny):
    n = MAX_STRINGS + 1
    start = position_of(tiny, "tokenizer.ggml.tokens")
    raw = tiny.read_bytes()[:start] + struct.pack("<IIQ", 9, 8, n)
    tiny.write_bytes(raw + bytes(8 * n))
    with pytest.raises(GGUFFormatError, match=f"has {n} elements, over {MAX_STRINGS}"):
        read_metadata(tiny)


# Split files


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Write a model in three parts; the path of the first."""
    write_gguf(tmp_path / "m.gguf", split_max_tensors=1)
    return tmp_path / "m-00001-of-00003.gguf"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_stands_for_the_whole(split, number):
    found = read_metadata(split.with_name(f"m-0000{number}-of-00003.gguf"))
    assert found.path == split
    assert [path.name for path in found.paths] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert found.tensor_types == {"F32": 2, "F16": 1}
    assert found.size_bytes == sum(path.stat().st_size for path in found.paths)
    assert found.position_encoding == "absolute", "the table is in another part"


def test_a_missing_part_is_named(split):
    split.with_name("m-00002-of-00003.gguf").unlink()
    with pytest.raises(ModelNotFoundError, match=r"1 of the 3 parts.*\(m-00002-of-00003.gguf\)"):
        read_metadata(split)


def test_a_renamed_part_is_refused(split, tmp_path):
    alone = shutil.copy(split, tmp_path / "alone.gguf")
    with pytest.raises(GGUFFormatError, match=r"one of 3 parts.*\*-00001-of-00003\.gguf"):
        read_metadata(Path(alone))


def test_swapped_parts_are_refused(split):
    second, third = (split.with_name(f"m-0000{n}-of-00003.gguf") for n in (2, 3))
    aside = second.rename(split.with_name("aside"))
    third.rename(second)
    aside.rename(third)
    with pytest.raises(GGUFFormatError, match="its name says part 2, its header another"):
        read_metadata(split)


def test_a_tensor_in_two_parts_is_refused(tmp_path):
    write_gguf(tmp_path / "m.gguf", tensors=add_two_alike, split_max_tensors=1)
    second = tmp_path / "m-00002-of-00002.gguf"
    patched(second, position_of(second, "blk.0.ab") - 1, b"a")
    with pytest.raises(GGUFFormatError, match="2 tensors expected, 1 in all parts"):
        read_metadata(second)

import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter

from embellama import EmbeddingEngine
from embellama.errors import GGUFFormatError
from embellama.gguf import read_metadata
from embellama.gguf_checks import VOCABULARIES
from tests.tiny_gguf import TOKENS, Change, with_value, without, write_gguf

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
IDS = ("bos_token_id", "eos_token_id", "seperator_token_id", "unknown_token_id")
FLAGS = ("add_bos_token", "add_eos_token", "add_sep_token")


def vocabulary(
    kind: str, tokens: list[str] = TOKENS, pre: str | None = None, **values: int | bool
) -> Change:
    """Describe a vocabulary that says only what is given."""

    def change(writer: GGUFWriter) -> None:
        without(*(f"tokenizer.ggml.{name}" for name in IDS + FLAGS))(writer)
        with_value("tokenizer.ggml.model", kind)(writer)
        with_value("tokenizer.ggml.tokens", tokens)(writer)
        with_value("tokenizer.ggml.token_type", [1] * len(tokens))(writer)
        if pre is not None:
            writer.add_tokenizer_pre(pre)
        for name, value in values.items():
            add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
            add(f"tokenizer.ggml.{name}", value)

    return change


def numbers(**values: int | list[int]) -> Change:
    """Set numbers of the model itself, one for all layers or a list; ``__`` stands for a dot."""

    def change(writer: GGUFWriter) -> None:
        for name, value in values.items():
            key = f"{writer.arch}.{name.replace('__', '.')}"
            writer.kv_data[0].pop(key, None)
            if isinstance(value, list):
                writer.add_array(key, value)
            else:
                writer.add_uint32(key, value)

    return change


def refused(tmp_path: Path, change: Change, message: str, arch: str = "bert") -> None:
    path = write_gguf(tmp_path / "m.gguf", change, arch=arch)
    with pytest.raises(GGUFFormatError, match=message):
        read_metadata(path)


# Vocabularies


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (vocabulary("no_vocab"), "'no_vocab'.: a model without one cannot embed text"),
        (vocabulary("none"), "has no vocabulary"),
        (without("tokenizer.ggml.model"), "has no vocabulary"),
        (vocabulary("rwkv"), "kind 'rwkv', and these can be used: bert, gemma4, gpt2"),
        (vocabulary("test"), "kind 'test'"),
        (vocabulary("hybriddna"), "kind 'hybriddna'"),
        (vocabulary("gpt2", pre="whitespace"), "pre-tokenizer 'whitespace'"),
        (vocabulary("bert", bos_token_id=2, unknown_token_id=1), "no .*seperator_token_id below 7"),
        (vocabulary("bert", bos_token_id=2, seperator_token_id=3), "no .*unknown_token_id below 7"),
        (vocabulary("t5", add_bos_token=True), "no .*bos_token_id below 7"),
        (vocabulary("t5", add_bos_token=True, bos_token_id=7), "no .*bos_token_id below 7"),
        (vocabulary("t5", TOKENS[:2]), "no .*unknown_token_id below 2"),
        (vocabulary("t5", TOKENS[:1], unknown_token_id=0), "no .*eos_token_id below 1"),
        (vocabulary("gpt2", add_eos_token=True), "no .*eos_token_id below 7"),
        (vocabulary("gpt2", pre="llama-bpe"), "no .*bos_token_id below 7"),
        (vocabulary("gpt2", BYTES, pre="glm4", add_bos_token=True), "no .*bos_token_id below 256"),
        (vocabulary("gpt2", pre="gemma4", add_bos_token=False), "no .*bos_token_id below 7"),
        (vocabulary("gemma4", BYTES), "no .*bos_token_id below 256"),
        (vocabulary("llama", BYTES[:1]), "no .*bos_token_id below 1"),
        (with_value("tokenizer.ggml.token_type", [3, 6, 3, 3, 1, 1, 1]), "type for bytes"),
        (with_value("tokenizer.ggml.token_type", [1] * 2000 + [6]), "type for bytes"),
        (vocabulary("llama"), "lacks some of the byte tokens"),
        (vocabulary("llama", [*BYTES[:65], *BYTES[66:]]), "lacks some of the byte tokens"),
    ],
)
def test_a_vocabulary_on_which_llama_cpp_ends_the_process_is_refused(tmp_path, change, message):
    refused(tmp_path, change, message)


@pytest.mark.parametrize(
    ("change", "kind", "pre"),
    [
        (vocabulary("gpt2"), "gpt2", None),
        (vocabulary("gpt2", pre="llama-bpe", add_bos_token=False), "gpt2", "llama-bpe"),
        (vocabulary("gpt2", BYTES, pre="qwen2", add_bos_token=True), "gpt2", "qwen2"),
        (vocabulary("whitespace", pre="whitespace"), "whitespace", "whitespace"),
        (vocabulary("gemma4", bos_token_id=2), "gemma4", None),
        (vocabulary("t5"), "t5", None),
        (vocabulary("plamo2", BYTES), "plamo2", None),
        (vocabulary("llama", BYTES, pre="default"), "llama", "default"),
        (vocabulary("llama", [*BYTES[:65], "A", *BYTES[66:0xF5]]), "llama", None),
        (vocabulary("bert", BYTES), "bert", None),
    ],
)
def test_a_vocabulary_that_can_tokenize_is_read(tmp_path, change, kind, pre):
    found = read_metadata(write_gguf(tmp_path / "m.gguf", change))
    assert (found.vocab_kind, found.pre_tokenizer) == (kind, pre)


def charsmap(table: dict[int, int], texts: bytes = b"x\0") -> Change:
    """Write a Unigram normalizer of one block; of an entry that is not given nothing follows."""
    entries = [table.get(place, 0) for place in range(256)]
    raw = struct.pack("<I256I", 1024, *entries) + texts

    def change(writer: GGUFWriter) -> None:
        vocabulary("t5")(writer)
        writer.add_precompiled_charsmap(raw)

    return change


LEAF, TEXT = 1 << 8, 1 << 31


def to(place: int) -> int:
    return place << 10


def test_a_normalizer_that_stays_within_its_tables_is_read(tmp_path):
    table = {0: to(1), 98: ord("c") | LEAF | to(98 ^ 7), 7: TEXT}
    assert read_metadata(write_gguf(tmp_path / "m.gguf", charsmap(table))).vocab_kind == "t5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (charsmap({0: to(256)}), "points out of itself"),
        (charsmap({0: TEXT | to(256)}), "points out of itself"),
        (charsmap({98: ord("c") | to(1 << 9)}), "points out of itself"),
        (charsmap({98: ord("c") | LEAF | to(98 ^ 7), 7: TEXT | 2}), "texts .* are cut off"),
        (charsmap({}, b"x"), "texts .* are cut off"),
    ],
)
def test_a_normalizer_that_leaves_its_tables_is_refused(tmp_path, change, message):
    refused(tmp_path, change, message)


# Sizes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (numbers(expert_count=2), "0 of 2 experts are used"),
        (numbers(expert_count=2, expert_used_count=3), "3 of 2 experts are used"),
        (numbers(expert_count=2, expert_used_count=[0, 3]), "3 of 2 experts are used"),
        (numbers(expert_count=1025, expert_used_count=1), "1 of 1025 experts are used"),
        (
            numbers(expert_count=2, expert_used_count=1, expert_group_count=2),
            "2 experts are in 2 groups",
        ),
        (numbers(expert_group_count=1), "0 experts are in 1 groups"),
        (
            numbers(expert_count=8, expert_used_count=1, expert_group_count=2),
            "0 of 2 groups of 8 experts are used",
        ),
        (numbers(nextn_predict_layers=2), "2 of 1 layers"),
        (numbers(attention__key_length=2), "keys are 2 long, its values 4"),
        (numbers(attention__value_length=8), "keys are 4 long, its values 8"),
        (
            numbers(attention__key_length=2, attention__value_length=2),
            "2 attention heads.* of 2 do not fill a row of 8",
        ),
        (numbers(attention__head_count=0), "0 attention heads"),
        (numbers(attention__head_count=3), "3 attention heads.* of 2 do not fill a row of 8"),
        (numbers(attention__head_count_kv=0), "0 of them with keys"),
        (numbers(embedding_length_out=1000), "1000 components, its rows 8"),
        (numbers(embedding_length_out=4), "4 components, its rows 8"),
    ],
)
def test_numbers_on_which_llama_cpp_ends_the_process_are_refused(tmp_path, change, message):
    refused(tmp_path, change, message)


@pytest.mark.parametrize("n_rot", [3, 6])
def test_rotating_half_a_pair_or_more_than_a_head_is_refused(tmp_path, n_rot):
    refused(tmp_path, numbers(rope__dimension_count=n_rot), f"{n_rot} of 4 comp", "nomic-bert")


@pytest.mark.parametrize(
    ("arch", "change"),
    [
        ("bert", numbers(nextn_predict_layers=1, rope__dimension_count=99)),
        ("bert", numbers(attention__key_length=4, attention__value_length=4)),
        ("bert", numbers(embedding_length_out=0)),
        ("nomic-bert-moe", numbers(expert_count=8, expert_used_count=[2])),
        ("hunyuan-dense", numbers(expert_count=1)),
        ("qwen3", numbers(attention__key_length=128, attention__value_length=128)),
        ("deepseek2", numbers(attention__key_length=192, attention__value_length=128)),
        ("lfm2", numbers(embedding_length_out=4)),
        ("nomic-bert", numbers(rope__dimension_count=2)),
    ],
)
def test_numbers_that_other_models_have_are_read(tmp_path, arch, change):
    assert read_metadata(write_gguf(tmp_path / "m.gguf", change, arch=arch)).architecture == arch


# In llama.cpp


def with_weights(n_vocab: int) -> Change:
    """Add the weights of a BERT that llama.cpp loads."""
    generator = np.random.default_rng(5)

    def add(writer: GGUFWriter) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd": (n_vocab, 8),
            "position_embd": (16, 8),
            "token_types": (2, 8),
        }
        layer = {f"attn_{part}": (8, 8) for part in ("q", "k", "v", "output")}
        layer |= {"ffn_up": (16, 8), "ffn_down": (8, 16)}
        shapes |= {f"blk.0.{name}": shape for name, shape in layer.items()}
        for name, shape in shapes.items():
            writer.add_tensor(f"{name}.weight", generator.normal(size=shape).astype(np.float32))
        for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
            for part in ("weight", "bias"):
                writer.add_tensor(f"{name}.{part}", np.ones(8, np.float32))

    return add


@pytest.mark.parametrize("kind", sorted(VOCABULARIES))
def test_every_kind_that_is_read_takes_any_text(tmp_path, kind):
    tokens = [*TOKENS, *BYTES]
    byte = 1 if kind == "bert" else 6

    def change(writer: GGUFWriter) -> None:
        ids = {"bos_token_id": 2, "eos_token_id": 3, "seperator_token_id": 3, "unknown_token_id": 1}
        vocabulary(kind, tokens, add_bos_token=True, add_eos_token=True, **ids)(writer)
        with_value("tokenizer.ggml.token_type", [3] * 4 + [1] * 3 + [byte] * 256)(writer)
        writer.add_token_scores([-1.0] * len(tokens))
        writer.add_token_merges(["a b"])
        writer.add_token_type_count(2)

    path = write_gguf(tmp_path / "m.gguf", change, tensors=with_weights(len(tokens)))
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="m")
        for text in ("a", "a\0b", " b\n\tc ", "漢 🙂", "\ufeff\u2581", "\U0010ffff"):
            assert set(engine.tokenize("m", text)) <= set(range(len(tokens)))
        assert engine.embed("m", "a b").shape == (8,)

"""The second text of a pair goes in as embeddings, where llama.cpp knows only the first's type."""

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from embellama._llama.model import LlamaBackend
from embellama._llama.token_types import TypedTokens, open_token_types
from embellama.config import ModelConfig
from embellama.errors import EmbeddingGenerationError, InvalidInputError, ModelLoadError
from embellama.gguf import TensorPlace, read_metadata
from embellama.hub.quantize import quantize_file
from embellama.types import ContextOptions, MicroBatch
from tests.tiny_cross_encoder import (
    PAD_OFFSET,
    WORDS,
    bert_weights,
    write_cross_encoder,
    write_xlmr_cross_encoder,
)

TYPES = "embeddings.token_type_embeddings.weight"
PLAIN = ModelConfig(flash_attn=False)


def contexts(path, pooling_type="rank"):
    """Yield a context of a model, and close both."""
    model = LlamaBackend().load(read_metadata(path), PLAIN, pooling_type)
    context = model.create_context(ContextOptions(n_tokens=64, n_sequences=4, n_threads=1))
    yield context
    context.close()
    model.close()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_cross_encoder(tmp_path_factory.mktemp("types") / "bert.gguf")


@pytest.fixture
def context(path):
    yield from contexts(path)


def batch(*typed):
    """Pack (ids, token types) pairs."""
    ids, types = zip(*typed, strict=True)
    as_arrays = [[np.array(row, np.int32) for row in rows] for rows in (ids, types)]
    return MicroBatch.pack(*as_arrays)


@pytest.mark.parametrize("token_type", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "MXFP4"])
def test_rows_are_those_llama_cpp_reads(tmp_path, token_type):
    """Where both types are the same, embeddings and ids have to give the same."""
    weights = bert_weights()
    weights[TYPES][1] = weights[TYPES][0]
    path = write_cross_encoder(
        tmp_path / "same.gguf", weights=weights, token_type=GGMLQuantizationType[token_type]
    )
    assert read_metadata(path).token_table.type_name == token_type
    every_word = list(range(len(WORDS)))[:60]
    for context in contexts(path):
        as_ids = context.run(batch((every_word[:40], [0] * 40)))
        as_rows = context.run(batch((every_word[:40], [0] + [1] * 39)))
        np.testing.assert_array_equal(as_ids, as_rows)


@pytest.mark.parametrize("file_type", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS"])
def test_rows_of_quantized_files_are_those_llama_cpp_reads(tmp_path, file_type):
    weights = bert_weights(width=256)
    weights[TYPES][1] = weights[TYPES][0]
    source = write_cross_encoder(tmp_path / "wide.gguf", weights=weights)
    path = quantize_file(source, tmp_path / "small.gguf", file_type, n_threads=1).path
    assert read_metadata(path).token_table.type_name not in ("F32", "F16")
    for context in contexts(path):
        as_ids = context.run(batch(([2, 40, 9, 3, 60, 3], [0] * 6)))
        as_rows = context.run(batch(([2, 40, 9, 3, 60, 3], [0, 0, 0, 0, 1, 1])))
        np.testing.assert_allclose(as_ids, as_rows, rtol=1e-6)


def test_other_types_are_told_apart(path):
    """Type 1 for all tokens is the same as a model whose type 0 is that row."""
    swapped = bert_weights()
    swapped[TYPES] = swapped[TYPES][::-1].copy()
    other = write_cross_encoder(path.with_name("swapped.gguf"), weights=swapped)
    for context in contexts(path):
        typed = context.run(batch(([2, 9, 3], [1, 1, 1])))
        untyped = context.run(batch(([2, 9, 3], [0, 0, 0])))
    for context in contexts(other):
        expected = context.run(batch(([2, 9, 3], [0, 0, 0])))
    np.testing.assert_allclose(typed, expected, atol=1e-5)
    assert abs(typed - untyped).max() > 0.1


def test_ids_and_embeddings_take_turns(context):
    plain, typed = batch(([2, 9, 3], [0, 0, 0])), batch(([2, 9, 3], [0, 1, 1]))
    first, second = context.run(plain), context.run(typed)
    np.testing.assert_array_equal(context.run(plain), first)
    np.testing.assert_array_equal(context.run(typed), second)
    assert first != second


def test_many_pairs_at_once(context):
    pairs = [
        ([2, 9, 3, 50, 3], [0, 0, 0, 1, 1]),
        ([2, 3, 8, 3], [0, 0, 1, 1]),
        ([2, 7, 3], [0] * 3),
    ]
    together = context.run(batch(*pairs))
    alone = np.concatenate([context.run(batch(pair)) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_split_model(path, tmp_path):
    write_cross_encoder(tmp_path / "split.gguf", tensors_a_part=2)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    metadata = read_metadata(parts[0])
    assert {metadata.token_table.path, metadata.token_type_table.path} == set(parts[:2])
    pair = batch(([2, 9, 3, 50, 3], [0, 0, 0, 1, 1]))
    for whole, split in zip(contexts(path), contexts(parts[0]), strict=True):
        np.testing.assert_array_equal(split.run(pair), whole.run(pair))


@pytest.mark.parametrize(
    ("types", "said"),
    [
        ([0, 2, 0], "token types from 0 to 2; this model has 0 to 1"),
        ([0, -1, 0], "token types from -1 to 0; this model has 0 to 1"),
        ([0, 1], r"token types of shape \(2,\) for 3 tokens"),
    ],
)
def test_types_that_are_not_there_are_refused(context, types, said):
    with pytest.raises(InvalidInputError, match=said):
        context.run(batch(([2, 9, 3], types)))
    assert context.run(batch(([2, 9, 3], [0, 1, 1]))).shape == (1, 1)


def test_a_model_with_one_type_has_only_that(tmp_path):
    path = write_xlmr_cross_encoder(tmp_path / "xlmr.gguf")
    metadata = read_metadata(path)
    assert metadata.n_token_types == 1
    assert metadata.n_ctx_train + PAD_OFFSET == 50
    assert open_token_types(metadata) is None
    for context in contexts(path):
        assert context.run(batch(([0, 9, 2], [0, 0, 0]))).shape == (1, 1)
        with pytest.raises(InvalidInputError, match="this model has 0 to 0"):
            context.run(batch(([0, 9, 2], [0, 1, 1])))


def test_a_type_that_the_gguf_package_cannot_read(tmp_path):
    raw = tmp_path / "rows"
    raw.write_bytes(bytes(64))
    table = TensorPlace(raw, offset=0, shape=(2, 8), type_name="I8", size_bytes=16)
    with pytest.raises(EmbeddingGenerationError, match="embeddings of type I8"):
        TypedTokens(table, table).read(np.zeros(1, np.int32), np.ones(1, np.int32))


def test_a_file_that_shrank_meanwhile(tmp_path):
    raw = tmp_path / "rows"
    raw.write_bytes(bytes(64))
    table = TensorPlace(raw, offset=32, shape=(2, 8), type_name="F32", size_bytes=64)
    with pytest.raises(ModelLoadError, match="changed while it was being loaded"):
        TypedTokens(table, table)
    raw.unlink()
    with pytest.raises(ModelLoadError, match="changed while it was being loaded"):
        TypedTokens(table, table)


@pytest.mark.parametrize("pooling_type", ["none", "max", "mean_sqrt_len"])
def test_token_rows_where_llama_cpp_does_not_pool(path, pooling_type):
    model = LlamaBackend().load(read_metadata(path), PLAIN, "rank")
    options = ContextOptions(n_tokens=64, n_sequences=4, n_threads=1, pooling_type=pooling_type)
    context = model.create_context(options)
    rows = context.run(batch(([2, 9, 3], [0, 0, 0]), ([2, 3], [0, 0])))
    context.close()
    model.close()
    assert rows.shape == (5, 64)
    assert np.isfinite(rows).all()

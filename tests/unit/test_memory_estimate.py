import dataclasses

import pytest
from gguf import GGUFValueType, GGUFWriter

from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.memory_estimate import estimate_memory, shape_of
from tests.tiny_decoder import write_decoder
from tests.tiny_gguf import write_gguf


@pytest.fixture
def bert(tmp_path):
    return shape_of(read_metadata(write_gguf(tmp_path / "bert.gguf")))


@pytest.fixture
def decoder(tmp_path):
    return shape_of(read_metadata(write_decoder(tmp_path / "llama.gguf")))


def test_the_shape_of_an_encoder(bert):
    assert (bert.n_layer, bert.n_embd, bert.n_ff, bert.n_head) == (1, 8, 16, 2)
    assert (bert.n_query, bert.n_key, bert.n_ctx) == (8, 8, 16)
    flags = (bert.is_gated, bert.is_rotary, bert.has_logits, bert.has_cache)
    assert flags == (False, False, False, False)


def test_the_shape_of_a_decoder(decoder):
    assert decoder.is_gated
    assert decoder.is_rotary
    assert decoder.has_logits
    assert decoder.has_cache


def test_where_layers_differ_the_largest_counts(tmp_path):
    def change(writer: GGUFWriter) -> None:
        prefix = "bert."
        for name, values in (
            ("feed_forward_length", [16, 40]),
            ("attention.head_count", [2, 4]),
            ("attention.head_count_kv", [1, 2]),
        ):
            writer.kv_data[0].pop(prefix + name, None)
            writer.add_array(prefix + name, values)

    shape = shape_of(read_metadata(write_gguf(tmp_path / "m.gguf", change)))
    assert (shape.n_ff, shape.n_head, shape.n_query, shape.n_key) == (40, 4, 8, 4)


def test_a_width_that_makes_no_sense_counts_as_unsaid(tmp_path):
    def change(writer: GGUFWriter) -> None:
        writer.kv_data[0].pop("bert.feed_forward_length", None)
        writer.add_key_value("bert.feed_forward_length", -1, GGUFValueType.INT32)

    shape = shape_of(read_metadata(write_gguf(tmp_path / "m.gguf", change)))
    assert shape.n_ff == 4 * shape.n_embd


def test_the_logits_of_every_token_are_counted(bert):
    small = estimate_memory(bert, ModelConfig(max_batch_tokens=100))
    large = estimate_memory(bert, ModelConfig(max_batch_tokens=300))
    assert large.outputs - small.outputs == 200 * (bert.n_vocab + bert.n_embd) * 4


def test_contexts_share_the_weights_and_nothing_else(bert):
    one = estimate_memory(bert, ModelConfig(n_contexts=1))
    three = estimate_memory(bert, ModelConfig(n_contexts=3))
    assert three.weights == one.weights == bert.weights_bytes
    assert (three.outputs, three.buffers) == (3 * one.outputs, 3 * one.buffers)


def test_a_long_text_counts_up_to_the_limit(bert):
    shape = dataclasses.replace(bert, n_ctx=8192)
    config = ModelConfig(max_batch_tokens=256, n_ctx=2048)
    sizes = [estimate_memory(shape, config, longest_text=n).n_tokens for n in (10, 1000, 8000)]
    assert sizes == [256, 1000, 2048]
    assert estimate_memory(shape, ModelConfig(max_batch_tokens=256)).n_tokens == 8192


def test_rows_are_kept_for_every_request_from_the_beginning(bert):
    config = ModelConfig(max_batch_tokens=16, max_batch_requests=200)
    assert estimate_memory(bert, config).outputs == 200 * (bert.n_vocab + bert.n_embd) * 4


def test_scores_are_kept_without_fused_attention(bert):
    shape = dataclasses.replace(bert, n_ctx=1024)
    fused = estimate_memory(shape, ModelConfig())
    kept = estimate_memory(shape, ModelConfig(flash_attn=False))
    assert kept.buffers - fused.buffers == 1024**2 * (4 * (1 + 2) - 2)


def test_it_says_what_takes_how_much(bert):
    estimate = estimate_memory(bert, ModelConfig())
    values = estimate.to_dict()
    assert values["total"] == estimate.total
    assert sum(values.values()) == 2 * estimate.total + estimate.n_tokens
    assert str(estimate).startswith(f"{estimate.total / 1e6:.0f} MB (process 76, ")

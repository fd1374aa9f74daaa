"""A model made to generate text: it embeds, with a warning, and a long context costs no memory."""

import numpy as np
import pytest

from embellama import (
    EmbeddingEngine,
    EmptyInputError,
    InputTooLongError,
    ModelConfig,
    ModelNotFoundError,
)
from tests.tiny_decoder import N_CTX, N_EMBD, write_decoder


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_decoder(tmp_path_factory.mktemp("decoder") / "decoder.gguf")


def test_it_pools_the_last_token_and_warns(path):
    with EmbeddingEngine() as engine:
        info = engine.load_model(path, name="d")
        assert (info.pooling_type, info.pooling_source) == ("last", "architecture")
        assert any("made to generate text" in warning for warning in info.warnings)
        assert any("set pooling_type" in warning for warning in info.warnings)
        assert engine.embed("d", "ab c").shape == (N_EMBD,)


def test_explicit_pooling_is_not_doubted(path):
    with EmbeddingEngine() as engine:
        info = engine.load_model(path, name="d", config=ModelConfig(pooling_type="mean"))
        assert (info.pooling_type, info.pooling_source) == ("mean", "explicit")
        assert not any("set pooling_type" in warning for warning in info.warnings)


def test_batch_equals_single_although_a_cache_is_kept_between_calls(path):
    texts = [
        " ".join([text] * n) for n in range(1, 7) for text in ("a", "ab c", "c c c a b", "b a")
    ]
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="d", config=ModelConfig(max_batch_tokens=40))
        batch = engine.embed_batch("d", texts)
        single = np.stack([engine.embed("d", text) for text in texts])
    np.testing.assert_allclose(batch, single, atol=5e-4)
    assert np.abs(batch[0] - batch[1]).max() > 1e-3


def test_a_rotary_model_may_go_beyond_its_training_with_a_warning(path):
    with EmbeddingEngine() as engine:
        info = engine.load_model(path, name="d", config=ModelConfig(n_ctx=2 * N_CTX))
        assert info.n_ctx == 2 * N_CTX
        assert any(f"beyond the {N_CTX} positions" in warning for warning in info.warnings)
        assert engine.embed("d", "a " * 100).shape == (N_EMBD,)


def test_the_trailing_eos_is_there_where_the_file_asks_for_it(tmp_path):
    path = write_decoder(tmp_path / "eos.gguf", add_eos=True)
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="d")
        ids = engine.tokenize("d", "ab c")
        assert (ids[0], ids[-1]) == (1, 2)
        assert 2 not in engine.tokenize("d", "ab c </s>")[:-1]


@pytest.mark.parametrize("text", ["", "   ", "\t\n", "\x00\x01", "\u200b"])
def test_blank_is_empty_for_a_vocabulary_that_has_tokens_for_it(path, text):
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="d")
        with pytest.raises(EmptyInputError, match="text 0"):
            engine.embed("d", text)


def test_a_vocabulary_that_adds_tokens_of_its_own_does_not_slip_over_the_limit(path):
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="d", config=ModelConfig(n_ctx=16))
        for length in range(10, 20):
            text = "!" * length  # a word's beginning, and then a byte token each
            if engine.count_tokens("d", text) <= 16:
                assert engine.embed("d", text).shape == (N_EMBD,)
            else:
                with pytest.raises(InputTooLongError):
                    engine.embed("d", text)


def test_a_split_model_is_loaded_by_any_of_its_parts(path, tmp_path):
    write_decoder(tmp_path / "split.gguf", tensors_a_part=8)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) > 2
    with EmbeddingEngine() as engine:
        engine.load_model(path, name="whole")
        info = engine.load_model(parts[1], name="split")
        assert info.path == parts[0]
        assert info.size_bytes == sum(part.stat().st_size for part in parts)
        whole, split = engine.embed("whole", "ab c"), engine.embed("split", "ab c")
    np.testing.assert_array_equal(whole, split)
    parts[2].unlink()
    with EmbeddingEngine() as engine, pytest.raises(ModelNotFoundError, match=parts[2].name):
        engine.load_model(parts[0])

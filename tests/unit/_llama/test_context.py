"""What llama.cpp answers with an abort of the process is refused before the call."""

import numpy as np
import pytest

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.errors import ContextError, GGUFFormatError, InvalidInputError, ModelLoadError
from embellama.gguf import read_metadata
from embellama.types import ContextOptions, MicroBatch
from tests.tiny_bert import WORDS
from tests.tiny_gguf import write_gguf


@pytest.fixture(scope="module")
def model(tiny_path):
    model = LlamaBackend().load(read_metadata(tiny_path), ModelConfig(), "mean")
    yield model
    model.close()


@pytest.fixture
def context(model):
    context = model.create_context(ContextOptions(n_tokens=16, n_sequences=4, n_threads=1))
    yield context
    context.close()


def micro_batch(*sequences):
    return MicroBatch.pack([np.array(ids, dtype=np.int32) for ids in sequences])


def test_rows_are_the_callers_own(context):
    first = context.run(micro_batch([2, 6, 3], [2, 8, 9, 3]))
    kept = first.copy()
    context.run(micro_batch([2, 10, 3]))
    assert first.shape == (2, 64)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (micro_batch([2] * 17), "17 tokens in a micro-batch; this context takes 16"),
        (micro_batch(*[[2, 3]] * 5), "5 sequences in a micro-batch; this context takes 1 to 4"),
        (micro_batch([2, len(WORDS), 3]), f"vocabulary has 0 to {len(WORDS) - 1}"),
        (micro_batch([2, -1, 3]), "token ids from -1"),
        (micro_batch([2, 3], []), "sequence lengths"),
        (
            MicroBatch(np.zeros(0, np.int32), np.zeros(1, np.int32)),
            "0 sequences in a micro-batch",
        ),
    ],
)
def test_what_would_end_the_process_is_an_error(context, batch, said):
    with pytest.raises(InvalidInputError, match=said):
        context.run(batch)
    assert context.run(micro_batch([2, 6, 3])).shape == (1, 64)


def test_a_sequence_beyond_the_position_table(model):
    context = model.create_context(ContextOptions(n_tokens=64, n_sequences=4, n_threads=1))
    with pytest.raises(InvalidInputError, match="17 tokens; the model has 16 positions"):
        context.run(micro_batch([2, 3], [6] * 17))
    context.close()


def test_sizes_that_do_not_divide_are_rounded_up(model):
    context = model.create_context(ContextOptions(n_tokens=10, n_sequences=7, n_threads=1))
    assert context.run(micro_batch([2, 6, 3], [2, 3], [2, 8, 9, 9, 3])).shape == (3, 64)
    assert context.size_bytes > 0
    context.close()


def test_a_closed_context_and_a_closed_model_say_so(tiny_path):
    model = LlamaBackend().load(read_metadata(tiny_path), ModelConfig(), "mean")
    context = model.create_context(ContextOptions(n_tokens=16, n_sequences=1, n_threads=1))
    context.close()
    context.close()
    with pytest.raises(ContextError, match="context is closed"):
        context.run(micro_batch([2, 3]))
    model.close()
    model.close()
    with pytest.raises(ContextError, match="model is closed"):
        model.create_context(ContextOptions(n_tokens=16, n_sequences=1, n_threads=1))


def test_token_rows_where_nothing_is_pooled(tiny_path):
    model = LlamaBackend().load(read_metadata(tiny_path), ModelConfig(), "none")
    context = model.create_context(ContextOptions(n_tokens=16, n_sequences=2, n_threads=1))
    rows = context.run(micro_batch([2, 6, 3], [2, 3]))
    assert rows.shape == (5, 64)
    context.close()
    model.close()


def test_a_load_error_carries_llama_cpps_own_words(tmp_path):
    path = write_gguf(tmp_path / "lacking.gguf")  # sound as a file, but most tensors are missing
    with pytest.raises(ModelLoadError, match="token type count") as caught:
        LlamaBackend().load(read_metadata(path), ModelConfig(), "mean")
    assert caught.value.log_lines


def test_a_word_piece_vocabulary_without_its_special_tokens(tiny_path, monkeypatch):
    from embellama._llama.binding import lib

    monkeypatch.setattr(lib, "llama_vocab_sep", lambda vocab: -1)
    with pytest.raises(GGUFFormatError, match="the sep token id is -1"):
        LlamaBackend().load(read_metadata(tiny_path), ModelConfig(), "mean")

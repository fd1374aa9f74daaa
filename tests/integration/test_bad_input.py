"""What must not be embedded, loaded or asked for: a clear error each, and the engine lives on."""

import random

import numpy as np
import pytest

from embellama import (
    ConfigurationError,
    EmbeddingEngine,
    EmptyInputError,
    GGUFFormatError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
    ModelConfig,
    ModelError,
    ModelNotFoundError,
)
from tests.tiny_gguf import with_value


@pytest.fixture(scope="module")
def tiny(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="tiny")
        yield engine


@pytest.fixture(autouse=True)
def _still_works(request):
    """After every test of a text the engine still answers."""
    yield
    if "tiny" in request.fixturenames:
        engine = request.getfixturevalue("tiny")
        assert engine.embed("tiny", "a c").shape == (64,)


# ── texts ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text",
    ["", " ", "\t\n \u3000", "\x01\x02\x1f", "\x00", "\x00" * 1000, "\u200b\ufeff", "\u0301"],
    ids=["empty", "space", "blank", "controls", "nul", "nuls", "zero width", "lone accent"],
)
def test_nothing_to_embed(tiny, text):
    with pytest.raises(EmptyInputError, match="nothing to embed in text 0"):
        tiny.embed("tiny", text)


def test_nul_inside_a_text_is_legal(tiny):
    np.testing.assert_array_equal(tiny.embed("tiny", "a\x00b"), tiny.embed("tiny", "ab"))


@pytest.mark.parametrize("text", ["\ud800", "fine until \udfff here", "\udc80" * 3])
def test_a_lone_surrogate_is_refused(tiny, text):
    with pytest.raises(InvalidInputError, match=r"lone surrogate U\+D"):
        tiny.embed("tiny", text)


@pytest.mark.parametrize("text", [b"bytes", None, 7, 1.5, ["a"], {"a": 1}])
def test_a_text_of_another_type(tiny, text):
    with pytest.raises(InvalidInputTypeError) as caught:
        tiny.embed("tiny", text)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("verb", ["embed_batch", "embed_stream"])
@pytest.mark.parametrize("text", ["a bare str", b"bytes"])
def test_one_text_is_not_a_sequence_of_letters(tiny, verb, text):
    with pytest.raises(InvalidInputTypeError, match=r"write \[text\]"):
        list(getattr(tiny, verb)("tiny", text))


@pytest.mark.parametrize("texts", [{"a", "b"}, np.array("a"), np.array([["a"]]), 7, None])
def test_texts_without_an_order_are_refused(tiny, texts):
    with pytest.raises(InvalidInputTypeError, match="sequence of str"):
        tiny.embed_batch("tiny", texts)


@pytest.mark.parametrize("name", [["tiny"], 5, b"tiny"])
def test_a_model_is_named_by_a_str(tiny, tiny_path, name):
    with pytest.raises(InvalidInputTypeError, match="named by a str"):
        tiny.embed(name, "a")
    with pytest.raises(InvalidInputTypeError, match="named by a str"):
        tiny.load_model(tiny_path, name=name)


def test_an_empty_list_is_no_vectors(tiny):
    vectors = tiny.embed_batch("tiny", [])
    assert vectors.shape == (0, 64)
    assert vectors.dtype == np.float32
    assert list(tiny.embed_stream("tiny", [])) == []


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("", EmptyInputError),
        (None, InvalidInputTypeError),
        ("a " * 15, InputTooLongError),
        ("\ud800", InvalidInputError),
    ],
)
def test_one_bad_item_among_a_thousand_is_named_before_any_inference(tiny, bad, error):
    texts = ["a b c"] * 1000
    texts[613] = bad
    told = []
    with pytest.raises(error, match="613") as caught:
        tiny.embed_batch("tiny", texts, progress=lambda done, total: told.append(done))
    assert caught.value.indices == (613,)
    assert not told


def test_every_bad_item_is_named(tiny):
    texts = ["a", "", "c", "a " * 20, "a", " "]
    with pytest.raises(InvalidInputError) as caught:
        tiny.embed_batch("tiny", texts)
    assert caught.value.indices == (1, 3, 5)
    assert "22 tokens" in str(caught.value)
    assert "limit of 16 tokens" in str(caught.value)


def test_a_stream_names_the_position_in_the_stream(tiny):
    stream = tiny.embed_stream("tiny", ["a"] * 600 + [""])
    with pytest.raises(EmptyInputError) as caught:
        list(stream)
    assert caught.value.indices == (600,)


def test_the_limit_is_exact(tiny):
    assert tiny.embed("tiny", "a " * 14).shape == (64,)
    with pytest.raises(InputTooLongError, match=r"0 \(17 tokens\)") as caught:
        tiny.embed("tiny", "a " * 15)
    assert (caught.value.n_tokens, caught.value.limit) == ((17,), 16)


def test_ten_megabytes_of_text(engine):
    with pytest.raises(InputTooLongError, match=r"\(2000002 tokens\)"):
        engine.embed("minilm", "word " * 2_000_000)
    one_word = "x" * 10_000_000
    assert engine.tokenize("minilm", one_word).tolist() == [101, 100, 102]


def test_an_unknown_overflow_policy(tiny):
    for call in (tiny.embed_batch, tiny.embed_stream, tiny.embed_detailed):
        with pytest.raises(ConfigurationError, match="'cut'; it has to be one of 'error'"):
            call("tiny", ["a text"], overflow="cut")


# ── models ──────────────────────────────────────────────────────────────────────────────────────


def test_an_unknown_model_says_what_is_loaded(tiny):
    with pytest.raises(ModelNotFoundError, match="'other' is loaded; loaded: 'tiny'"):
        tiny.embed("other", "a")


@pytest.mark.parametrize("reference", ["none.gguf", "./none", "minilmm", "hf:only-owner"])
def test_a_model_that_is_nowhere(tiny, reference):
    with pytest.raises((ModelNotFoundError, InvalidInputError)):
        tiny.load_model(reference)


def test_a_directory(tiny, tmp_path):
    with pytest.raises(ModelNotFoundError, match="is a directory"):
        tiny.load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\x00\x00\x00", b"#!/bin/sh\n" * 100])
def test_empty_short_and_foreign_files(tiny, tmp_path, content):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(GGUFFormatError):
        tiny.load_model(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(tiny, tiny_path, tmp_path, part):
    data = tiny_path.read_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(GGUFFormatError):
        tiny.load_model(path)


def test_random_bytes(tiny, tmp_path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + random.Random(5).randbytes(100_000))
    with pytest.raises(GGUFFormatError):
        tiny.load_model(path)


def test_bit_flipped_files_load_or_are_refused_but_end_nothing(tiny, tiny_path, tmp_path):
    chooser, data, refused = random.Random(6), tiny_path.read_bytes(), 0
    path = tmp_path / "flipped.gguf"
    for _ in range(150):
        flipped = bytearray(data)
        flipped[chooser.randrange(8, 3000)] ^= 1 << chooser.randrange(8)
        path.write_bytes(flipped)
        try:
            tiny.load_model(path, name="flipped")
            tiny.embed("flipped", "a c")
            tiny.unload_model("flipped")
        except (ModelError, ConfigurationError, EmptyInputError):
            refused += 1
    assert refused > 50


def test_token_rows_are_no_vectors_and_the_error_says_the_way_out(tiny, tiny_path):
    tiny.load_model(tiny_path, name="none", config=ModelConfig(pooling_type="none"))
    with pytest.raises(ConfigurationError, match="call embed_tokens, or set pooling_type to mean"):
        tiny.embed("none", "a")
    assert tiny.embed_tokens("none", ["a"])[0].vectors.shape == (3, 64)


def test_a_model_without_a_classifier_scores_no_pairs(tiny, tiny_path):
    with pytest.raises(ConfigurationError, match="has no classifier"):
        tiny.load_model(tiny_path, name="rank", config=ModelConfig(pooling_type="rank"))


# ── sizes and devices ───────────────────────────────────────────────────────────────────────────


def test_a_context_beyond_the_position_table(tiny, tiny_path):
    with pytest.raises(ConfigurationError, match="n_ctx = 17, but the model has 16 positions"):
        tiny.load_model(tiny_path, name="long", config=ModelConfig(n_ctx=17))


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(n_ctx=7, max_batch_requests=256, max_batch_tokens=1),
        ModelConfig(max_batch_requests=7, max_batch_tokens=13),
        ModelConfig(max_batch_requests=256, max_batch_tokens=255),
        ModelConfig(n_threads=512),
        ModelConfig(n_contexts=5),
    ],
)
def test_sizes_llama_cpp_would_abort_on_are_made_to_fit(tiny_path, config):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="odd", config=config)
        assert engine.embed_batch("odd", [f"a {n}" for n in range(300)]).shape == (300, 64)


def test_more_than_256_sequences_cannot_be_asked_for():
    with pytest.raises(ConfigurationError, match="max_batch_requests = 257"):
        ModelConfig(max_batch_requests=257)


@pytest.mark.parametrize("n_threads", [0, -1, 513, 10**9])
def test_absurd_thread_counts(n_threads):
    with pytest.raises(ConfigurationError, match=f"n_threads = {n_threads}"):
        ModelConfig(n_threads=n_threads)


def test_a_gpu_that_is_not_there(tiny, tiny_path):
    devices = pytest.importorskip("embellama._llama.devices")
    if devices.gpu_names():
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(ConfigurationError, match="sees no GPU"):
        tiny.load_model(tiny_path, name="gpu", config=ModelConfig(use_gpu=True))
    info = tiny.load_model(tiny_path, name="gpu", config=ModelConfig(use_gpu="auto"))
    assert (info.device, info.n_layers_offloaded) == ("CPU", 0)
    with pytest.raises(ConfigurationError, match="n_gpu_layers = 2, but"):
        tiny.load_model(tiny_path, name="gpu", config=ModelConfig(n_gpu_layers=2))
    tiny.unload_model("gpu")


def test_a_vocabulary_whose_ids_point_nowhere(tmp_path):
    from tests.tiny_gguf import write_gguf

    path = write_gguf(tmp_path / "ids.gguf", with_value("tokenizer.ggml.bos_token_id", 99))
    with EmbeddingEngine() as engine, pytest.raises(ModelError):
        engine.load_model(path)

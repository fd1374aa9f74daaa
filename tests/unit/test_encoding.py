import dataclasses

import numpy as np
import pytest

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.encoding import Encoding, InputEncoder, window_spans
from embellama.errors import ConfigurationError, GGUFFormatError, InvalidInputError
from embellama.gguf import read_metadata
from embellama.testing import FakeVocabulary
from embellama.tokenization import Tokenizer
from tests.architectures import qwen3, t5_encoder, xlm_roberta

WORDS = "a bb ccc dddd eeeee ffffff"
OWN = [11, 12, 13, 14, 15, 16]


@pytest.fixture(scope="module")
def metadata(tiny_path):
    return read_metadata(tiny_path)


@pytest.fixture(scope="module")
def tokenizer(metadata):
    return Tokenizer(FakeVocabulary(), metadata)


@pytest.fixture(scope="module")
def real(metadata):
    model = LlamaBackend().load(metadata, ModelConfig(), "mean")
    yield Tokenizer(model.vocabulary, metadata)
    model.close()


def lists(encoding: Encoding) -> list[list[int]]:
    return [window.tolist() for window in encoding.windows]


def test_a_text_within_the_limit_is_left_as_it_is(tokenizer):
    encoding = InputEncoder(tokenizer, limit=8, overflow="truncate").encode(WORDS)
    assert lists(encoding) == [[1, *OWN, 2]]
    assert (encoding.n_own, encoding.n_tokens, encoding.n_dropped) == ((6,), 8, 0)


@pytest.mark.parametrize(
    ("side", "prompt", "kept", "n_dropped"),
    [
        ("right", "", [1, 11, 12, 13, 2], 3),
        ("left", "", [1, 14, 15, 16, 2], 3),
        ("right", "pppppppppp ", [1, 20, 11, 12, 2], 4),
        ("left", "pppppppppp ", [1, 20, 15, 16, 2], 4),
    ],
)
def test_a_cut_keeps_prompt_and_special_tokens(tokenizer, side, prompt, kept, n_dropped):
    encoder = InputEncoder(
        tokenizer, prompt=prompt, limit=5, overflow="truncate", truncate_side=side
    )
    encoding = encoder.encode(WORDS)
    assert lists(encoding) == [kept]
    assert encoding.n_dropped == n_dropped
    assert encoding.n_tokens == 8 + bool(prompt)


def test_windows_repeat_the_prompt_and_the_overlap(tokenizer):
    encoder = InputEncoder(
        tokenizer, prompt="pppppppppp ", limit=6, overflow="window", window_overlap=1
    )
    encoding = encoder.encode(WORDS)
    assert lists(encoding) == [[1, 20, 11, 12, 13, 2], [1, 20, 13, 14, 15, 2], [1, 20, 15, 16, 2]]
    assert (encoding.n_own, encoding.n_tokens, encoding.n_dropped) == ((3, 3, 2), 9, 0)


def test_under_error_a_long_text_is_given_back_whole(tokenizer):
    encoding = InputEncoder(tokenizer, limit=4).encode(WORDS)
    assert lists(encoding) == [[1, *OWN, 2]]


@pytest.mark.parametrize("item", ["", "  ", np.array([1, 2], np.int32), np.array([2], np.int32)])
def test_nothing_of_its_own(tokenizer, item):
    assert InputEncoder(tokenizer, prompt="" if len(item) else "p ").encode(item) is None


def test_ids_get_no_special_tokens(tokenizer):
    encoder = InputEncoder(tokenizer, limit=4, overflow="truncate")
    assert lists(encoder.encode(np.array(OWN, np.int32))) == [OWN[:4]]
    assert lists(encoder.encode(np.array([1, *OWN], np.int32))) == [[1, *OWN[:3]]]


def test_ids_before_which_a_prompt_is_wanted_are_refused(tokenizer):
    with pytest.raises(InvalidInputError, match="the prompt 'p ' cannot be put"):
        InputEncoder(tokenizer, prompt="p ").encode(np.array(OWN, np.int32))


@pytest.mark.parametrize(
    ("limit", "prompt", "least"), [(2, "", 2), (3, "p ", 3), (1, "", 2), (5, "p p p ", 5)]
)
def test_a_limit_without_room_is_refused(tokenizer, limit, prompt, least):
    encoder = InputEncoder(tokenizer, prompt=prompt, limit=limit)
    with pytest.raises(ConfigurationError, match=f"raise max_tokens.* to more than {least}$"):
        encoder.check()
    InputEncoder(tokenizer, prompt=prompt, limit=least + 1).check()


@pytest.mark.parametrize("overlap", [-1, 3, 100])
def test_windows_that_would_not_advance_are_refused(tokenizer, overlap):
    encoder = InputEncoder(tokenizer, limit=5, overflow="window", window_overlap=overlap)
    with pytest.raises(
        ConfigurationError, match=f"window_overlap = {overlap}; it has to be 0 to 2"
    ):
        encoder.check()


def test_a_prompt_that_is_not_text_is_refused(real):
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        InputEncoder(real, prompt="\ud800").check()


def test_a_word_that_the_prompt_swallows_is_a_token_of_the_text(real):
    """`a` is a word of the vocabulary; behind a sign that is in none, it is part of an unknown."""
    encoder = InputEncoder(real, prompt="☃")
    assert len(encoder.prompt_ids) == 1
    encoding = encoder.encode("a")
    assert lists(encoding) == [real.encode("☃a").tolist()]
    assert encoding.n_own == (1,)
    assert encoder.encode("\u0301") is None


def test_a_prompt_that_melts_with_the_text_keeps_its_other_tokens(real):
    encoder = InputEncoder(real, prompt="c a", limit=5, overflow="truncate", truncate_side="left")
    assert real.encode("c ab").tolist() == [2, 8, 6, 7, 3]
    encoding = encoder.encode("bing c c c")
    whole = real.encode("c abing c c c")
    assert lists(encoding) == [[*whole[:3], *whole[-2:]]]


def test_what_surely_fits_is_known_without_tokenizing(real):
    encoder = InputEncoder(real, prompt="c c ", limit=16)
    assert encoder.surely_fits("a" * 10)
    assert not encoder.surely_fits("a" * 11)
    assert not encoder.surely_fits("é")
    assert not InputEncoder(real, prompt="é ", limit=16).surely_fits("a")
    assert not encoder.surely_fits(np.array([6], np.int32))


@pytest.mark.parametrize(
    ("model", "before", "after"),
    [(xlm_roberta, [0], [2]), (t5_encoder, [], [1]), (qwen3, [], ["<|endoftext|>"])],
    ids=["<s> and </s>", "</s>", "the end of text"],
)
def test_special_tokens_of_other_vocabularies(tmp_path, model, before, after):
    path = model.MODELS[0].write(tmp_path / "tiny.gguf")
    metadata = read_metadata(path)
    loaded = LlamaBackend().load(metadata, ModelConfig(), "mean")
    tokenizer = Tokenizer(loaded.vocabulary, metadata)
    if model is qwen3:
        after = [qwen3.qwen_pieces().index(piece) for piece in after]
    assert (tokenizer.prefix.tolist(), tokenizer.suffix.tolist()) == (before, after)
    loaded.close()


def test_special_tokens_that_depend_on_the_text_are_refused(metadata):
    class Moody(FakeVocabulary):
        def tokenize(self, text, *, add_special=True):
            ids = super().tokenize(text, add_special=add_special)
            return np.where(ids == 1, 3, ids) if text else ids

    changed = dataclasses.replace(metadata, vocab_kind="t5")
    with pytest.raises(GGUFFormatError, match=r"around nothing \(\[1, 2\]\) .* \(\[3, 11, 2\]\)"):
        Tokenizer(Moody(), changed)


def test_one_window_where_all_fits():
    assert window_spans(5, size=5, overlap=4) == [(0, 5)]
    assert window_spans(6, size=5, overlap=4) == [(0, 5), (1, 6)]
    assert window_spans(1, size=9, overlap=0) == [(0, 1)]

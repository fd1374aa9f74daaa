"""What a cut and a division into windows keep, for any special tokens, prompt and text."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.encoding import InputEncoder, window_spans
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata
from embellama.tokenization import Tokenizer

PREFIX, SUFFIX = [1, 2, 3], [4, 5, 6]


class PairVocabulary:
    """One id a letter, and one for each pair of equal letters: ends of texts may melt together."""

    def __init__(self, n_before: int, n_after: int) -> None:
        self.before, self.after = PREFIX[:n_before], SUFFIX[:n_after]

    def tokenize(self, text: str, *, add_special: bool = True):
        ids, place = [], 0
        while place < len(text):
            is_pair = text[place : place + 2] == text[place] * 2
            ids.append(ord(text[place]) + (1000 if is_pair else 0))
            place += 2 if is_pair else 1
        whole = [*self.before, *ids, *self.after] if add_special else ids
        return np.array(whole, dtype=np.int32)

    def pieces(self, ids):
        return [bytes([token % 1000] * (2 if token > 1000 else 1)) for token in ids]


@pytest.fixture(scope="module")
def metadata(tiny_path):
    return dataclasses.replace(read_metadata(tiny_path), vocab_kind="t5")


@pytest.fixture(scope="module")
def minilm(minilm_path):
    metadata = read_metadata(minilm_path)
    model = LlamaBackend().load(metadata, ModelConfig(), "mean")
    yield Tokenizer(model.vocabulary, metadata)
    model.close()


letters = st.text("abc", max_size=30)
affixes = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def situations(draw):
    """Draw affixes, prompt, limit, what is done and an overlap."""
    return (
        draw(affixes),
        draw(st.text("abp", max_size=5)),
        draw(st.integers(1, 25)),
        draw(st.sampled_from(["error", "truncate", "window"])),
        draw(st.sampled_from(["left", "right"])),
        draw(st.integers(0, 6)),
    )


def encoder_of(metadata, situation):
    (n_before, n_after), prompt, limit, overflow, side, overlap = situation
    tokenizer = Tokenizer(PairVocabulary(n_before, n_after), metadata)
    encoder = InputEncoder(
        tokenizer,
        prompt=prompt,
        limit=limit,
        overflow=overflow,
        truncate_side=side,
        window_overlap=overlap if overflow == "window" else 0,
    )
    try:
        encoder.check()
    except ConfigurationError:
        assume(False)
    return encoder


def check_window(encoder, window, whole, n_own, n_head, n_tail):
    """Every sequence has the whole one's beginning and end, and the tokens it says it has."""
    assert len(window) == n_head + n_own + n_tail <= encoder.limit
    assert window.dtype == np.int32
    np.testing.assert_array_equal(window[:n_head], whole[:n_head])
    np.testing.assert_array_equal(window[len(window) - n_tail :], whole[len(whole) - n_tail :])


def check_encoding(encoder, encoding, whole, n_head, n_tail):
    own = whole[n_head : len(whole) - n_tail]
    assert encoding.n_tokens == len(whole)
    if len(whole) <= encoder.limit or encoder.overflow == "error":
        (window,) = encoding.windows
        np.testing.assert_array_equal(window, whole)
        assert (encoding.n_own, encoding.n_dropped) == ((len(own),), 0)
        return
    pieces = [window[n_head : len(window) - n_tail] for window in encoding.windows]
    for window, n_own, piece in zip(encoding.windows, encoding.n_own, pieces, strict=True):
        assert n_own == len(piece) > 0
        check_window(encoder, window, whole, n_own, n_head, n_tail)
    if encoder.overflow == "truncate":
        (window,), (piece,) = encoding.windows, pieces
        assert len(window) == encoder.limit
        assert encoding.n_dropped + len(window) == encoding.n_tokens
        kept = own[-len(piece) :] if encoder.truncate_side == "left" else own[: len(piece)]
        np.testing.assert_array_equal(piece, kept)
        return
    assert encoding.n_dropped == 0
    assert len(pieces) > 1
    assert all(len(window) == encoder.limit for window in encoding.windows[:-1])
    overlap = encoder.window_overlap
    for one, next_one in pairwise(pieces):
        assert len(next_one) > overlap
        np.testing.assert_array_equal(one[len(one) - overlap :], next_one[:overlap])
    glued = np.concatenate([pieces[0], *(piece[overlap:] for piece in pieces[1:])])
    np.testing.assert_array_equal(glued, own)


@given(situations(), letters)
@example(((1, 1), "a", 5, "truncate", "left", 0), "aaaaaaaaaaaaaa")  # the prompt's end melts
@settings(max_examples=400, deadline=None)
def test_texts(metadata, situation, text):
    encoder = encoder_of(metadata, situation)
    encoding = encoder.encode(text)
    if not text:
        assert encoding is None
        return
    whole = encoder.tokenizer.encode(encoder.prompt + text)
    n_before, n_after = len(encoder.tokenizer.prefix), len(encoder.tokenizer.suffix)
    # tokens of the prompt that the text left as they are
    alone = encoder.tokenizer.encode(encoder.prompt, add_special=False)
    found = whole[n_before : n_before + len(alone)]
    n_prompt = next((i for i, (a, b) in enumerate(zip(found, alone, strict=True)) if a != b), None)
    n_prompt = len(alone) if n_prompt is None else n_prompt
    assert n_prompt >= len(alone) - 1
    check_encoding(encoder, encoding, whole, n_before + n_prompt, n_after)


@given(situations(), letters, st.booleans())
@settings(max_examples=400, deadline=None)
def test_ids_with_and_without_special_tokens(metadata, situation, text, special):
    encoder = dataclasses.replace(encoder_of(metadata, situation), prompt="")
    tokenizer = encoder.tokenizer
    ids = tokenizer.encode(text, add_special=special)
    encoding = encoder.encode(ids)
    if not text:
        assert encoding is None
        return
    n_before = len(tokenizer.prefix) if special else 0
    n_after = len(tokenizer.suffix) if special else 0
    check_encoding(encoder, encoding, ids, n_before, n_after)


@given(affixes, letters)
def test_special_tokens_are_found(metadata, counts, text):
    tokenizer = Tokenizer(PairVocabulary(*counts), metadata)
    assert tokenizer.n_special == sum(counts)
    body = tokenizer.encode(text, add_special=False)
    around = np.concatenate([tokenizer.prefix, body, tokenizer.suffix])
    np.testing.assert_array_equal(around, tokenizer.encode(text))


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 39))
def test_windows_cover_everything_and_none_lies_in_another(n_tokens, size, overlap):
    assume(overlap < size)
    spans = window_spans(n_tokens, size=size, overlap=overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == n_tokens
    assert all(stop - start == size for start, stop in spans[:-1])
    assert 0 < spans[-1][1] - spans[-1][0] <= size
    for (start, stop), (next_start, next_stop) in pairwise(spans):
        assert next_start == stop - overlap
        assert next_start > start
        assert next_stop > stop


english = st.text(st.sampled_from("abcdefgh é.☃中İ"), min_size=1, max_size=60)


@given(
    english,
    st.sampled_from(["", "query: ", "Represent this sentence: ", "é"]),
    st.integers(12, 24),
    st.sampled_from(["truncate", "window"]),
    st.sampled_from(["left", "right"]),
    st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_the_real_vocabulary(minilm, text, prompt, limit, overflow, side, overlap):
    encoder = InputEncoder(
        minilm,
        prompt=prompt,
        limit=limit,
        overflow=overflow,
        truncate_side=side,
        window_overlap=overlap if overflow == "window" else 0,
    )
    encoder.check()
    encoding = encoder.encode(text)
    if not len(minilm.encode(text, add_special=False)):
        assert encoding is None
        return
    assert encoding is not None
    whole = minilm.encode(prompt + text)
    n_prompt = whole.size - 2 - encoding.n_own[0]
    if len(encoding.windows) > 1 or encoding.n_dropped:
        n_prompt = limit - 2 - encoding.n_own[0]
    used = len(encoder.prompt_ids)
    assert used - 1 <= n_prompt <= used
    check_encoding(encoder, encoding, whole, 1 + n_prompt, 1)


@given(english, st.sampled_from(["", "query: ", "x" * 101]), st.integers(3, 200))
def test_a_text_said_to_fit_does(minilm, text, prompt, limit):
    encoder = InputEncoder(minilm, prompt=prompt, limit=limit)
    if encoder.surely_fits(text):
        encoding = encoder.encode(text)
        assert encoding is not None
        assert max(map(len, encoding.windows)) <= limit

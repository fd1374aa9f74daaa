import dataclasses

import numpy as np
import pytest

from embellama.errors import InvalidInputError
from embellama.gguf import read_metadata
from embellama.testing import FakeVocabulary
from embellama.tokenization import (
    MAX_RUN_CHARS,
    PARALLEL_CHARS,
    Tokenizer,
    map_inputs,
    normalizer_for,
)
from embellama.wordpiece import WordPieceNormalizer


@pytest.fixture(scope="module")
def metadata(tiny_path):
    return read_metadata(tiny_path)


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "expected"),
    [
        (None, None, WordPieceNormalizer(True, True)),
        (True, None, WordPieceNormalizer(True, True)),
        (True, False, WordPieceNormalizer(True, False)),
        (False, None, WordPieceNormalizer(False, False)),
        (False, True, WordPieceNormalizer(False, True)),
    ],
)
def test_the_file_says_how_text_is_normalised(metadata, lowercase, strip_accents, expected):
    changed = dataclasses.replace(metadata, lowercase=lowercase, strip_accents=strip_accents)
    assert normalizer_for(changed) == expected


def test_other_vocabularies_get_the_text_as_it_is(metadata):
    changed = dataclasses.replace(metadata, vocab_kind="gpt2")
    assert normalizer_for(changed)("Ångström\x00") == "Ångström\x00"


def test_many_texts_come_back_in_order_from_several_threads(metadata):
    tokenizer = Tokenizer(FakeVocabulary(), metadata)
    texts = [f"{'x' * (n % 7 + 1)} y" + " z" * 260 for n in range(1000)]
    assert sum(map(len, texts)) > PARALLEL_CHARS
    many = map_inputs(tokenizer.encode, texts, n_jobs=4)
    assert len(many) == 1000
    for ids, text in zip(many, texts, strict=True):
        np.testing.assert_array_equal(ids, tokenizer.encode(text))


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("plain text", True),
        ("x" * 98, True),
        ("x" * 99, False),
        ("", False),
        ("   ", False),
        ("tab\tbed", False),
        ("é", False),
    ],
)
def test_what_is_known_without_tokenizing(metadata, text, fits):
    tokenizer = Tokenizer(FakeVocabulary(), metadata)
    assert tokenizer.n_special == 2
    assert tokenizer.surely_fits(text, 100) is fits


@pytest.mark.parametrize("char", ["!", "a", " ", "\n", "é"])
def test_a_run_that_would_overflow_the_stack_is_refused(metadata, char):
    changed = dataclasses.replace(metadata, vocab_kind="gpt2", pre_tokenizer="default")
    tokenizer = Tokenizer(FakeVocabulary(), changed)
    assert len(tokenizer.encode(char * MAX_RUN_CHARS)) <= 3
    before = "abc" if char.isspace() else "   "
    with pytest.raises(InvalidInputError, match="from character 3 on"):
        tokenizer.encode(before + char * (MAX_RUN_CHARS + 1))


def test_kinds_that_llama_cpp_splits_by_hand_take_any_run(metadata):
    changed = dataclasses.replace(metadata, vocab_kind="gpt2", pre_tokenizer="qwen2")
    assert len(Tokenizer(FakeVocabulary(), changed).encode("!" * 100_000)) == 3


def test_vocabularies_that_add_tokens_of_their_own_are_always_tokenized(metadata):
    tokenizer = Tokenizer(FakeVocabulary(), dataclasses.replace(metadata, vocab_kind="t5"))
    assert not tokenizer.surely_fits("plain text", 100)

"""A stream reads little ahead, keeps little, and leaves the order as it was."""

import gc
import weakref
from itertools import count, islice

import numpy as np
import pytest

from embellama import EmbeddingCache, EmbeddingEngine, EmptyInputError, ModelConfig
from embellama.streaming import FIRST_WINDOW
from embellama.testing import FakeBackend


def mixed(batch):
    """Give each sequence the row (sum of ids, weighted sum of ids): different for each text."""
    parts = np.split(batch.input_ids, batch.offsets[1:-1])
    return np.array(
        [[ids.sum(), (ids * np.arange(1, len(ids) + 1)).sum()] for ids in parts], dtype=np.float32
    )


@pytest.fixture(params=[False, True], ids=["no cache", "cache"])
def engine(request, tiny_path):
    cache = EmbeddingCache.in_memory() if request.param else None
    with EmbeddingEngine(backend=FakeBackend(mixed), cache=cache) as engine:
        engine.load_model(
            tiny_path, name="m", config=ModelConfig(n_threads=1, normalization="none")
        )
        yield engine


def text(number):
    """Make one text of 1 to 12 words for each number; their lengths are its ids."""
    digits = [int(digit) for digit in f"{number:o}"]
    return " ".join("x" * (digit + 1) for digit in digits)


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 192, 193, 1500])
def test_any_number_of_texts_in_order(engine, n):
    texts = [text(number) for number in range(n)]
    stream = list(engine.embed_stream("m", iter(texts)))
    assert len(stream) == n
    if n:
        np.testing.assert_array_equal(np.stack(stream), engine.embed_batch("m", texts))


def test_how_far_an_endless_source_is_read_ahead(engine):
    read = []

    def source():
        for number in count():
            read.append(number)
            yield text(number)

    stream = engine.embed_stream("m", source())
    assert read == []
    first = next(stream)
    assert len(read) == FIRST_WINDOW + 2 * FIRST_WINDOW
    list(islice(stream, 3000))
    assert len(read) - 3001 <= 1024
    np.testing.assert_array_equal(first, engine.embed("m", text(0)))
    stream.close()


def test_repeats_within_and_across_windows(engine):
    numbers = [*(number % 7 for number in range(64)), *(number % 90 for number in range(400))]
    texts = [text(number) for number in numbers]
    stream = np.stack(list(engine.embed_stream("m", texts)))
    np.testing.assert_array_equal(stream, engine.embed_batch("m", texts))


def test_bad_texts_are_named_by_their_place_after_the_windows_before(engine):
    texts = [text(number) for number in range(64)] + ["x", "", "x", ""]
    stream, got = engine.embed_stream("m", texts), []
    with pytest.raises(EmptyInputError) as caught:
        got.extend(stream)
    assert caught.value.indices == (65, 67)
    assert len(got) == 64


def test_what_went_by_is_let_go_of(engine):
    stream = engine.embed_stream("m", (text(number) for number in range(1200)))
    references = []
    for vector in stream:
        references.append(weakref.ref(vector))
    del vector
    gc.collect()
    assert not any(reference() is not None for reference in references)

"""What is known of a chunk travels with its vector."""

from datetime import UTC, datetime

import numpy as np
import pytest

from embellama import (
    BatchError,
    Chunk,
    DecodeError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
    ModelConfig,
)
from tests.recording import recording_engine
from tests.reference_texts import SENTENCES

DOCUMENT = Chunk(
    "ferry-1",
    SENTENCES[0],
    source="ferries.pdf",
    page=3,
    section="Departures",
    created_at=datetime(2024, 5, 1, tzinfo=UTC),
    properties={"language": "en", "tags": ["boat"]},
)


@pytest.fixture
def recorded(tiny_path):
    config = ModelConfig(n_threads=1, prompts={"document": "c ", "query": "ab "})
    engine, backend = recording_engine(tiny_path, config=config)
    with engine:
        yield engine, backend


@pytest.mark.filterwarnings("ignore:no prompts are known")
def test_chunks_come_back_whole_and_in_order(engine):
    chunks = [DOCUMENT, *(Chunk(str(n), SENTENCES[n % 5]) for n in range(40))]
    found = engine.embed_chunks("minilm", chunks)
    assert [each.chunk for each in found] == chunks
    assert found[0].chunk is DOCUMENT
    expected = engine.embed_detailed("minilm", [chunk.text for chunk in chunks], kind="document")
    np.testing.assert_array_equal(np.stack([each.vector for each in found]), expected.vectors)
    assert tuple(each.report for each in found) == expected.texts
    assert {(each.model, each.fingerprint) for each in found} == {("minilm", expected.fingerprint)}


def test_each_vector_is_its_own(engine):
    # two of one text, which is computed once
    one, other = engine.embed_chunks("minilm", [Chunk("1", "same"), Chunk("2", "same")])
    assert not np.shares_memory(one.vector, other.vector)
    one.vector[:] = 0
    assert np.linalg.norm(other.vector) == pytest.approx(1)
    assert one.vector.base is None


def test_chunks_are_documents_unless_told_otherwise(recorded):
    engine, backend = recorded
    engine.embed_chunks("m", [Chunk("1", "a")])
    engine.embed_chunks("m", [Chunk("1", "a")], kind="query")
    assert backend.sequences == [[2, 8, 6, 3], [2, 6, 7, 6, 3]]


def test_options_reach_chunks(recorded):
    engine, _ = recorded
    long = Chunk("1", "a " * 30)
    (cut,) = engine.embed_chunks("m", [long], overflow="truncate")
    assert (cut.report.n_tokens, cut.report.n_dropped, cut.report.truncated) == (33, 17, True)
    (divided,) = engine.embed_chunks("m", [long], overflow="window")
    assert divided.report.n_windows == 3
    (bits,) = engine.embed_chunks("m", [Chunk("1", "a")], precision="ubinary")
    assert (bits.vector.shape, bits.vector.dtype) == ((8,), np.uint8)
    assert len({cut.fingerprint, divided.fingerprint, bits.fingerprint}) == 3
    told = []
    engine.embed_chunks(
        "m", [Chunk("1", "a c"), Chunk("2", "a c")], progress=lambda *each: told.append(each)
    )
    assert told[-1] == (2, 2)


def test_the_cache_knows_the_texts_of_chunks(recorded):
    engine, _ = recorded
    first = engine.embed_chunks("m", [Chunk("1", "a c a")])[0]
    again = engine.embed_chunks("m", [Chunk("other", "a c a", page=7)])[0]
    np.testing.assert_array_equal(first.vector, again.vector)
    assert (first.report.cached, again.report.cached) == (False, True)
    assert again.chunk.page == 7


def test_no_chunks_give_none(recorded):
    engine, backend = recorded
    assert engine.embed_chunks("m", []) == []
    assert engine.embed_chunks("m", ()) == []
    assert not backend.sequences


@pytest.mark.parametrize(
    ("chunks", "error", "message", "indices"),
    [
        (None, InvalidInputTypeError, "sequence of Chunk, not NoneType", ()),
        ("a c", InvalidInputTypeError, "sequence of Chunk, not str", ()),
        (DOCUMENT, InvalidInputTypeError, "sequence of Chunk, not Chunk", ()),
        (iter([DOCUMENT]), InvalidInputTypeError, "not list_iterator", ()),
        ([Chunk("1", "a"), "c"], InvalidInputTypeError, r"\[1\] do not.*str", (1,)),
        ([Chunk("1", "a"), Chunk("1", "c")], InvalidInputError, "share ids.*'1'", (0, 1)),
        ([Chunk("1", "a"), Chunk("2", " ")], EmptyInputError, "text 1", (1,)),
        ([Chunk("1", "a"), Chunk("2", None)], InvalidInputTypeError, "1 is None", (1,)),
        ([Chunk("1", "a " * 20), Chunk("2", "a")], InputTooLongError, r"0 \(23 tokens\)", (0,)),
    ],
)
def test_chunks_that_cannot_be_embedded(recorded, chunks, error, message, indices):
    engine, backend = recorded
    with pytest.raises(error, match=message) as caught:
        engine.embed_chunks("m", chunks)
    assert caught.value.indices == indices
    assert not backend.sequences


def test_a_chunk_that_fails_is_named(recorded):
    engine, backend = recorded

    def refuse(batch):
        if 7 in batch.input_ids:
            raise DecodeError("scripted", status=-3)

    backend.before = refuse
    with pytest.raises(BatchError) as caught:
        engine.embed_chunks("m", [Chunk("1", "ab"), Chunk("2", "ab")])
    assert caught.value.failed_indices == (0, 1)

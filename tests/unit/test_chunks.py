from datetime import UTC, datetime

import numpy as np
import pytest

from embellama.chunks import Chunk, EmbeddedChunk, check_chunks
from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.results import TextReport

FIRST, SECOND = Chunk("1", "one"), Chunk("2", "two")


def test_a_chunk_keeps_what_is_known_of_it():
    made = datetime(2024, 5, 1, tzinfo=UTC)
    chunk = Chunk("a", "text", "book.pdf", 3, "Birds", made, {"language": "en"})
    assert (chunk.source, chunk.page, chunk.section, chunk.created_at) == (
        "book.pdf",
        3,
        "Birds",
        made,
    )
    assert chunk.properties == {"language": "en"}
    assert Chunk("a", "text") == Chunk("a", "text")
    assert Chunk("a", "text").properties is not Chunk("b", "text").properties
    with pytest.raises(AttributeError):
        chunk.text = "other"


def test_an_embedded_chunk_is_only_equal_to_itself():
    """Two with equal vectors need not be: a comparison of arrays is no answer."""
    report = TextReport(3, 0, 1, cached=False)
    vector = np.ones(2, np.float32)
    one, other = (EmbeddedChunk(FIRST, vector, report, "m", "f") for _ in range(2))
    assert one == one  # noqa: PLR0124
    assert one != other


@pytest.mark.parametrize("chunks", [[FIRST, SECOND], (FIRST, SECOND), [], ()])
def test_chunks_come_back(chunks):
    assert check_chunks(chunks) is chunks


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        (FIRST, "Chunk"),
        ("text", "str"),
        (b"text", "bytes"),
        (None, "NoneType"),
        ({"1": FIRST}, "dict"),
        (iter([FIRST]), "list_iterator"),
    ],
)
def test_what_is_no_sequence_is_refused(chunks, kind):
    with pytest.raises(InvalidInputTypeError, match=f"a sequence of Chunk, not {kind}$"):
        check_chunks(chunks)


def test_what_is_no_chunk_is_named():
    with pytest.raises(
        InvalidInputTypeError, match=r"\[1, 3\] do not \(the first is str\)"
    ) as info:
        check_chunks([FIRST, "two", SECOND, None])
    assert info.value.indices == (1, 3)


def test_all_that_share_an_id_are_named():
    chunks = [FIRST, SECOND, Chunk("1", "other"), Chunk("3", "x"), Chunk("2", "two")]
    with pytest.raises(InvalidInputError, match=r"\[0, 1, 2, 4\] share ids .*'1'") as info:
        check_chunks(chunks)
    assert info.value.indices == (0, 1, 2, 4)


def test_a_long_list_of_faults_is_cut_in_the_message_only():
    with pytest.raises(InvalidInputError) as info:
        check_chunks([FIRST] * 50)
    assert info.value.indices == tuple(range(50))
    assert "10" not in str(info.value)


@pytest.mark.parametrize("chunk_id", [["list"], {"a": 1}, 7, None])
def test_an_id_that_is_no_text_is_refused(chunk_id):
    with pytest.raises(InvalidInputTypeError, match="ids have to be str") as info:
        check_chunks([FIRST, Chunk(chunk_id, "text")])
    assert info.value.indices == (1,)

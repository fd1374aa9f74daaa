"""Pieces of documents: text and what has to travel along with its vector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from numpy.typing import NDArray

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.results import TextReport


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.

    Attributes:
        id: Names it; unique among the chunks of one call.
        text: What is embedded.
        source: The document it comes from: a path, an address.
        page: Its page there, counted from 1.
        section: Its heading there.
        created_at: When the document was made or changed.
        properties: Anything else.
    """

    id: str
    text: str
    source: str | None = None
    page: int | None = None
    section: str | None = None
    created_at: datetime | None = None
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedChunk:
    """A chunk with its vector.

    Attributes:
        chunk: As it was given.
        vector: (dimensions,), of the precision asked for; its own memory.
        report: What became of its text.
        model: The name of the model.
        fingerprint: What made the vector; see `EmbeddingResult.fingerprint`.
    """

    chunk: Chunk
    vector: NDArray[Any]
    report: TextReport
    model: str
    fingerprint: str


def check_chunks(chunks: object) -> Sequence[Chunk]:
    """Return the chunks, or refuse what cannot be told apart.

    Raises:
        InvalidInputTypeError: It is no sequence of `Chunk`, or an id is no str.
        InvalidInputError: Two have one id.
    """
    if not isinstance(chunks, Sequence) or isinstance(chunks, str | bytes):
        raise InvalidInputTypeError(
            f"chunks has to be a sequence of Chunk, not {type(chunks).__name__}"
        )
    wrong = [index for index, chunk in enumerate(chunks) if not isinstance(chunk, Chunk)]
    if wrong:
        kind = type(chunks[wrong[0]]).__name__
        raise InvalidInputTypeError(
            f"chunks has to hold Chunk, but {wrong[:10]} do not (the first is {kind})",
            indices=wrong,
        )
    unnamed = [index for index, chunk in enumerate(chunks) if not isinstance(chunk.id, str)]
    if unnamed:
        kind = type(chunks[unnamed[0]].id).__name__
        raise InvalidInputTypeError(
            f"ids have to be str, but those of chunks {unnamed[:10]} are not (the first is {kind})",
            indices=unnamed,
        )
    counts = Counter(chunk.id for chunk in chunks)
    repeated = [index for index, chunk in enumerate(chunks) if counts[chunk.id] > 1]
    if repeated:
        raise InvalidInputError(
            f"chunks {repeated[:10]} share ids (the first: {chunks[repeated[0]].id!r}); "
            "give each its own",
            indices=repeated,
        )
    return chunks

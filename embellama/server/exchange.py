"""One request and its answer, as handlers see them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = b"application/json"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        body: The bytes.
        status: The HTTP status.
        media_type: What the bytes are.
        headers: Others than content-type and content-length.
    """

    body: bytes
    status: int = 200
    media_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def answer(
    content: Any, *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Answer:
    """Make an answer of plain values and arrays.

    float32 is written with the fewest digits that are read back as the same float32.
    """
    return Answer(orjson.dumps(content, option=_OPTIONS), status, JSON, headers)


def json_line(content: Any) -> bytes:
    """Write plain values as JSON in one line; what JSON has no form for is written by its `repr`.

    Raises:
        TypeError: An integer of more than 64 bits, or a string that is no Unicode.
    """
    return orjson.dumps(content, default=repr, option=_LINE)


@dataclass(slots=True)
class Exchange:
    """A request under way, and what is noted of it for logs, metrics and traces.

    Attributes:
        request_id: The client's ``x-request-id``, or one made here.
        headers: Lower-case names; of repeated ones the last.
        path_params: What stands in the path's places.
        query: The query string.
        client: The name of the key it came with, or the client's address.
        deadline_s: Until when it has to be answered, on the clock of `time.monotonic`.
        n_body_bytes: Bytes of its body.
        model: The model that answers it.
        n_texts: Texts in it.
        n_tokens: Tokens of them.
        n_truncated: Texts that were cut.
        n_cached: Texts whose vectors were there already.
        queue_s: Seconds until the first text was begun.
        tokenize_s: Seconds of tokenization.
        inference_s: Seconds of computing, added up over the workers.
        extra_headers: Headers that its answer gets.
    """

    request_id: str
    headers: Mapping[bytes, bytes]
    path_params: Mapping[str, str]
    query: bytes
    client: str
    deadline_s: float
    n_body_bytes: int = 0
    started_s: float = field(default_factory=time.perf_counter)
    model: str | None = None
    n_texts: int = 0
    n_tokens: int = 0
    n_truncated: int = 0
    n_cached: int = 0
    queue_s: float = 0.0
    tokenize_s: float = 0.0
    inference_s: float = 0.0
    extra_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def remaining_s(self) -> float:
        """Seconds that are left to answer in."""
        return max(self.deadline_s - time.monotonic(), 0.0)

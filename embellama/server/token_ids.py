"""What token ids in a request mean, which no request says: refused unless the server was told.

The only importer of tiktoken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from embellama.errors import ConfigurationError, InvalidInputError, MissingDependencyError
from embellama.server.settings import TokenIds

Item = str | Sequence[int]


def readable(items: Sequence[Item], meaning: TokenIds) -> Sequence[Item]:
    """Return what the engine takes for a request's inputs: texts, or the model's own ids.

    Args:
        items: Texts, or token ids.
        meaning: What ids are.

    Raises:
        InvalidInputError: There are ids and they are refused, or none of the vocabulary's.
    """
    ids = [index for index, item in enumerate(items) if not isinstance(item, str)]
    if not ids or meaning == "model":
        return items
    if meaning == "refuse":
        raise InvalidInputError(
            "the input is token ids, and nobody said whose: clients that send OpenAI's, as "
            "langchain-openai does by itself, would get the vectors of other words. Send text "
            "(OpenAIEmbeddings(check_embedding_ctx_length=False)), or start the server with "
            "--token-ids cl100k_base if the ids are tiktoken's, or --token-ids model if they are "
            "the model's own",
            indices=ids,
        )
    encoding = _encoding(meaning)
    return [
        item if isinstance(item, str) else _decoded(encoding, item, index)
        for index, item in enumerate(items)
    ]


def check_available(meaning: TokenIds) -> None:
    """Refuse to start where ids cannot be decoded.

    Raises:
        MissingDependencyError: tiktoken is not installed.
        ConfigurationError: Its vocabulary could not be fetched.
    """
    if meaning not in ("refuse", "model"):
        _encoding(meaning)


@cache
def _encoding(name: str) -> Any:
    try:
        import tiktoken  # noqa: PLC0415
    except ImportError as exc:
        raise MissingDependencyError(
            f"--token-ids {name} needs tiktoken: pip install 'embellama[tiktoken]'",
            extra="tiktoken",
        ) from exc
    try:
        return tiktoken.get_encoding(name)
    except Exception as exc:
        raise ConfigurationError(
            f"tiktoken's vocabulary {name} could not be fetched ({exc}); connect once, or set "
            "TIKTOKEN_CACHE_DIR to a folder that has it"
        ) from exc


def _decoded(encoding: Any, ids: Sequence[int], index: int) -> str:
    try:
        text: str = encoding.decode(list(ids), errors="strict")
    except (KeyError, OverflowError, UnicodeDecodeError) as exc:
        raise InvalidInputError(
            f"input {index} has ids that {encoding.name} does not decode to a text ({exc})",
            indices=(index,),
        ) from exc
    return text

"""The tokens of texts with the characters they stand for, for as much text as that is right for."""

from __future__ import annotations

from collections.abc import Sequence

from embellama.errors import EmptyInputError
from embellama.inputs import listed
from embellama.results import TextToken
from embellama.server.problems import Problem
from embellama.server.service import Service

CHARS_A_TOKEN = 250
"""Characters for each token of the model's limit, above which a text is refused: its characters
are gone through one by one. Source: MAX_CHAR_MULTIPLIER in text-embeddings-inference."""


async def tokens_of(
    service: Service,
    name: str,
    texts: Sequence[str],
    *,
    add_special_tokens: bool = True,
    prompt_name: str | None = None,
    timeout_s: float,
) -> list[list[TextToken]]:
    """Tokenize texts on a thread, so that the loop goes on.

    Args:
        service: The server.
        name: A loaded model.
        texts: The texts.
        add_special_tokens: Whether to put the model's special tokens around each.
        prompt_name: Which of the model's prompts to put before each.
        timeout_s: Seconds after which it is of no use.

    Raises:
        ModelNotFoundError: It is not loaded.
        ConfigurationError: It has no such prompt.
        InvalidInputError: A text is empty or cannot be tokenized, which is named.
        Problem: A text is much longer than the model takes.
        EmbeddingTimeoutError: It was not done in time.
    """
    _check(texts, limit=service.engine.get_model_info(name).n_ctx * CHARS_A_TOKEN)
    return await service.engine.atokenize_detailed(
        name,
        texts,
        prompt_name=prompt_name,
        add_special_tokens=add_special_tokens,
        priority="interactive",  # it is done in milliseconds, and waits for no worker
        timeout_s=timeout_s,
    )


def _check(texts: Sequence[str], *, limit: int) -> None:
    empty = [index for index, text in enumerate(texts) if not text]
    if empty:
        raise EmptyInputError(
            f"nothing to tokenize in text {listed(empty)}; leave it out", indices=empty
        )
    long = {index: len(text) for index, text in enumerate(texts) if len(text) > limit}
    if long:
        named = [f"{index} ({n_chars:,} characters)" for index, n_chars in long.items()]
        raise Problem(
            400,
            "input_too_long",
            f"over the limit of {limit:,} characters, {CHARS_A_TOKEN} for each token that the "
            f"model takes: text {listed(named)}; split them",
            indices=tuple(long),
        )

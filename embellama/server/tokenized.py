"""The tokens of texts with the characters they stand for."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embellama.errors import EmbeddingTimeoutError, EmptyInputError, InvalidInputError
from embellama.inputs import listed
from embellama.loaded_model import LoadedModel
from embellama.request import EmbedOptions
from embellama.server.counting import on_thread_to_its_end
from embellama.server.problems import Problem
from embellama.server.service import Service
from embellama.tokenization import Tokenizer

CHARS_A_TOKEN = 250
"""Characters for each token of the model's limit, above which a text is refused: its characters
are gone through one by one. Source: MAX_CHAR_MULTIPLIER in text-embeddings-inference."""

_SPELLINGS = "[CLS][SEP]<s></s><bos><eos><|endoftext|><|im_end|><|begin_of_text|><|end_of_text|>"
"""What special tokens around a text are called in vocabularies of embedding models."""


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token of a text.

    Attributes:
        id: Its number in the vocabulary.
        text: The characters it stands for; of a special one its name, where it has a usual one.
        special: Whether the model puts it around every text.
        start: Where its characters begin, prompt included; None for special tokens and where the
            tokenizer's steps cannot be traced back.
        stop: Where they end.
    """

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


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
    end_s = time.monotonic() + timeout_s
    gone = threading.Event()

    def one(
        loaded: LoadedModel, text: str, index: int, names: Mapping[int, str]
    ) -> list[TextToken]:
        if gone.is_set() or time.monotonic() > end_s:
            raise EmbeddingTimeoutError(
                f"not done within {timeout_s:.3g} s: {index} of {len(texts)} texts are; send fewer "
                "at a time",
                timeout_s=timeout_s,
            )
        return _tokens(loaded.tokenizer, text, index, names, add_special_tokens)

    def work() -> list[list[TextToken]]:
        # the verbs give ids alone; spans need the model's own tokenizer, held like any verb does
        with service.engine._use(name) as loaded:
            prompt = loaded.request_for(EmbedOptions(prompt_name=prompt_name)).encoder.prompt
            _check(texts, limit=loaded.facts.n_ctx * CHARS_A_TOKEN)
            names = {number: name for name, number in loaded.control_tokens(_SPELLINGS).items()}
            return [one(loaded, prompt + text, index, names) for index, text in enumerate(texts)]

    return await on_thread_to_its_end(work, gone)


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


def _tokens(
    tokenizer: Tokenizer,
    text: str,
    index: int,
    names: Mapping[int, str],
    add_special_tokens: bool,
) -> list[TextToken]:
    try:
        ids = tokenizer.encode(text, add_special=add_special_tokens)
    except InvalidInputError as exc:
        raise InvalidInputError(
            f"cannot be tokenized: text {index} ({exc})", indices=(index,)
        ) from exc
    n_before, n_after = len(tokenizer.prefix), len(tokenizer.suffix)
    own = range(n_before, len(ids) - n_after) if add_special_tokens else range(len(ids))
    found = []
    for place, (number, span, piece) in enumerate(
        zip(ids.tolist(), tokenizer.spans(text, ids), tokenizer.pieces(ids), strict=True)
    ):
        if place not in own:
            found.append(TextToken(number, names.get(number, ""), True, None, None))
        elif span is None:
            found.append(TextToken(number, piece.decode(errors="replace"), False, None, None))
        else:
            found.append(TextToken(number, text[slice(*span)], False, *span))
    return found

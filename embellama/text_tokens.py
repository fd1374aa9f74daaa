"""What a text's tokens are: their numbers, their names, and the characters they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embellama.calls import Call
from embellama.errors import InvalidInputError
from embellama.loaded_model import LoadedModel
from embellama.results import TextToken
from embellama.tokenization import Tokenizer

_SPELLINGS = "[CLS][SEP]<s></s><bos><eos><|endoftext|><|im_end|><|begin_of_text|><|end_of_text|>"
"""What special tokens around a text are called in vocabularies of embedding models."""


def tokens_of_texts(
    model: LoadedModel,
    texts: Sequence[str],
    *,
    prompt: str,
    add_special_tokens: bool,
    call: Call,
) -> list[list[TextToken]]:
    """Tokenize checked texts, one after the other.

    Raises:
        InvalidInputError: A text cannot be tokenized, which is named.
        EmbeddingTimeoutError: The call's time is up.
    """
    names = {number: name for name, number in model.control_tokens(_SPELLINGS).items()}
    found = []
    for index, text in enumerate(texts):
        call.check()
        try:
            found.append(_tokens(model.tokenizer, prompt + text, names, add_special_tokens))
        except InvalidInputError as exc:
            raise InvalidInputError(
                f"cannot be tokenized: text {index} ({exc})", indices=(index,)
            ) from exc
    return found


def _tokens(
    tokenizer: Tokenizer, text: str, names: Mapping[int, str], add_special_tokens: bool
) -> list[TextToken]:
    ids = tokenizer.encode(text, add_special=add_special_tokens)
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

"""What options of a request mean, and which a model cannot follow or would cost too much."""

from __future__ import annotations

from collections.abc import Sequence

from embellama.model_info import ModelInfo
from embellama.request import DEFAULT_OVERLAP
from embellama.server.problems import Problem
from embellama.server.schemas.common import Extension
from embellama.server.service import Service
from embellama.server.token_ids import Item
from embellama.types import Overflow

MIN_WINDOW = 16
"""Tokens of the smallest windows: a long text is no more of them than it has tokens by eight."""


def prompted(
    info: ModelInfo | None, items: Sequence[Item], options: Extension, prompt_name: str | None
) -> Sequence[Item]:
    """Return texts as they are counted: each with the prompt that goes in front of it.

    Args:
        info: The model, if it was loaded once.
        items: Texts, or token ids.
        options: The request's.
        prompt_name: The name of the prompt, where it has one.
    """
    prompt = options.prompt
    if prompt is None and info is not None:
        prompt = info.prompts.get(prompt_name or options.kind or "")
    if not prompt:
        return items
    return [prompt + item if isinstance(item, str) else item for item in items]


def overflow_of(truncate: bool | None) -> Overflow | None:
    """Return what becomes of texts over the limit, where an API has one word for it.

    None: as the server was started.
    """
    if truncate is None:
        return None
    return "truncate" if truncate else "error"


def check_prompt_name(info: ModelInfo, name: str | None, param: str) -> None:
    """Refuse a prompt that the model does not have.

    Raises:
        Problem: It has no such prompt; 400.
    """
    if name is None or name in info.prompts:
        return
    known = ", ".join(map(repr, info.prompts)) or "none"
    raise Problem(
        400,
        "configuration",
        f"prompt_name = {name!r}; the prompts of model {info.name!r} are: {known}; name one of "
        'them, or send the prompt itself as "embellama": {"prompt": "..."}',
        param=param,
    )


def check_dimensions(info: ModelInfo, wanted: int | None, *, force: bool) -> None:
    """Refuse a length of vectors that the model does not have.

    Raises:
        Problem: It is longer than its own, or one that it was not trained for; 400.
    """
    if wanted is None or wanted == info.n_embd:
        return
    if not 1 <= wanted <= info.n_embd:
        said = f"model {info.name!r} has vectors of 1 to {info.n_embd}"
    elif force or wanted in info.matryoshka_dims:
        return
    else:
        trained = ", ".join(map(str, info.matryoshka_dims))
        fact = f"was trained for {trained}" if trained else "does not declare any shorter length"
        said = (
            f"model {info.name!r} {fact}; its first components mean little without the others; "
            'send "embellama": {"force_dimensions": true} to cut them all the same'
        )
    raise Problem(400, "configuration", f"dimensions = {wanted}, but {said}", param="dimensions")


def check_windows(service: Service, info: ModelInfo, options: Extension) -> None:
    """Refuse windows that would compute a text many times over; for requests that divide texts.

    At least a quarter of each has to be new, so that all of them together have at most four times
    the text's tokens.

    Raises:
        Problem: They are smaller, or share more; 400.
    """
    limit = min(options.max_tokens or info.n_ctx, info.n_ctx)
    if limit < min(MIN_WINDOW, info.n_ctx):
        raise Problem(
            400,
            "configuration",
            f"windows of {limit} tokens, and the least is {MIN_WINDOW}; raise max_tokens",
            param="embellama.max_tokens",
        )
    n_besides = info.n_special_tokens
    if options.prompt:
        # counted without the special tokens that each count has
        n_besides = service.engine.count_tokens(info.name, options.prompt)
    room = limit - n_besides
    overlap = options.window_overlap
    if overlap is None:
        overlap = int(DEFAULT_OVERLAP * max(room, 0))
    if 2 * overlap > limit - info.n_special_tokens or 4 * (room - overlap) < limit:
        raise Problem(
            400,
            "configuration",
            f"windows of {limit} tokens, of which {n_besides} are the prompt and special tokens "
            f"and {overlap} are shared with the one before: at most half may be shared, and a "
            "quarter has to be new; lower window_overlap, or shorten the prompt",
            param="embellama.window_overlap",
        )

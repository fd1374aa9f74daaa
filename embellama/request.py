"""What one call wants of a model, checked once against what the model can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard, get_args

import numpy as np

from embellama.config import MAX_P
from embellama.encoding import InputEncoder
from embellama.errors import ConfigurationError
from embellama.identity import digest_parts
from embellama.model_info import ModelInfo
from embellama.precision.calibration import Calibration
from embellama.tokenization import Tokenizer
from embellama.types import Kind, Normalization, Overflow, Precision, TruncateSide

DEFAULT_OVERLAP = 0.1
"""Part of a window that the next one repeats, unless told otherwise."""


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedOptions:
    """How texts are embedded. The keyword arguments of every embedding method, in one place.

    Attributes:
        kind: ``"query"`` or ``"document"``: puts the model's prompt for that role in front.
        prompt: Put this in front instead.
        prompt_name: Put the model's prompt of this name in front.
        overflow: A text over the limit is refused (``"error"``), cut (``"truncate"``), or embedded
            in overlapping windows whose vectors are averaged by their tokens (``"window"``).
        truncate_side: Which end a cut takes away. Prompt and special tokens always stay.
        max_tokens: A lower limit than the model's ``n_ctx``.
        window_overlap: Tokens that neighbouring windows share; a tenth of a window unless given.
        normalization: Other than the model's configuration says.
        dimensions: Cut vectors to their first so many components and normalise again.
        force_dimensions: Also where the model does not declare that it was trained for that.
        precision: The type of the components.
        calibration: Ranges of the components, for ``"int8"`` and ``"uint8"``.
    """

    kind: Kind | None = None
    prompt: str | None = None
    prompt_name: str | None = None
    overflow: Overflow = "error"
    truncate_side: TruncateSide = "right"
    max_tokens: int | None = None
    window_overlap: int | None = None
    normalization: Normalization | None = None
    dimensions: int | None = None
    force_dimensions: bool = False
    precision: Precision = "float32"
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Take numpy's whole numbers for Python's, and nothing else that merely equals one."""
        for name in ("max_tokens", "window_overlap", "dimensions"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
            elif value is not None and not _is_count(value):
                raise ConfigurationError(f"{name} = {value!r}; it has to be a whole number")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Options that fit the model: each choice made, nothing left open.

    Attributes:
        encoder: How inputs become sequences.
        normalization: How vectors are scaled.
        dimensions: Components of a vector; all of the model's unless fewer were asked for.
        precision: The type of the components.
        calibration: Ranges of the components, for ``"int8"`` and ``"uint8"``.
        prompt_is_missing: The model has prompts and the call chose none.
        prompt_is_unknown: The call chose a role, and nobody said what this model's prompts are.
    """

    encoder: InputEncoder
    normalization: Normalization
    dimensions: int
    precision: Precision
    calibration: Calibration | None
    prompt_is_missing: bool
    prompt_is_unknown: bool

    @property
    def cache_policy(self) -> str:
        """All but model, prompt and text that a whole float32 vector depends on."""
        encoder = self.encoder
        parts = (encoder.overflow, encoder.truncate_side, encoder.limit, encoder.window_overlap)
        return "/".join(map(str, (*parts, self.normalization)))

    def fingerprint(self, model_fingerprint: str) -> str:
        """Identify what the vectors of this call are, 32 hexadecimal digits."""
        encoder = self.encoder
        policy: tuple[object, ...] = (encoder.overflow,)
        if encoder.overflow == "truncate":
            policy += (encoder.truncate_side, encoder.limit)
        elif encoder.overflow == "window":
            policy += (encoder.limit, encoder.window_overlap)
        ranges = self.calibration.digest if self.calibration is not None else None
        normalization = "l2" if self.normalization == 2 else self.normalization
        output = (normalization, self.dimensions, self.precision, ranges)
        parts = ("embellama result", model_fingerprint, encoder.prompt, policy, output)
        return digest_parts(map(str, parts))


def resolve_request(info: ModelInfo, tokenizer: Tokenizer, options: EmbedOptions) -> EmbedRequest:
    """Check options against a model, and fill in what they leave open.

    Raises:
        ConfigurationError: An option has no such value, two contradict each other, or the model
            cannot do it; the message says what it can.
    """
    check_choices(options)
    limit = _limit(info, options.max_tokens)
    encoder = InputEncoder(
        tokenizer,
        prompt=_prompt(info, options),
        limit=limit,
        overflow=options.overflow,
        truncate_side=options.truncate_side,
    )
    if options.overflow == "window":
        encoder = _with_overlap(encoder, options.window_overlap)
    encoder.check()
    chosen = (options.kind, options.prompt, options.prompt_name)
    return EmbedRequest(
        encoder=encoder,
        normalization=_normalization(info, options.normalization),
        dimensions=_dimensions(info, options.dimensions, force=options.force_dimensions),
        precision=options.precision,
        calibration=_calibration(info, options),
        prompt_is_missing=any(info.prompts.values()) and all(part is None for part in chosen),
        prompt_is_unknown=options.kind is not None and not info.prompts,
    )


def check_makes_vectors(info: ModelInfo, *, pooled: bool = True) -> None:
    """Refuse a model that cannot answer an embedding call.

    Args:
        info: The model.
        pooled: Whether one vector a text is wanted, and not one a token.

    Raises:
        ConfigurationError: It scores pairs of texts, or keeps its token rows apart.
    """
    if info.pooling_type == "rank":
        raise ConfigurationError(
            f"model {info.name!r} scores pairs of texts (pooling 'rank', {info.pooling_source}); "
            "it makes no vectors: call rerank, or load an embedding model"
        )
    if pooled and info.pooling_type == "none":
        raise ConfigurationError(
            f"model {info.name!r} keeps its token rows apart (pooling 'none', "
            f"{info.pooling_source}); call embed_tokens, or set pooling_type to mean, cls or last"
        )


def missing_prompt(info: ModelInfo) -> str:
    """Say that a model was trained with prompts and none was chosen."""
    prompts = ", ".join(f"{name}: {prompt!r}" for name, prompt in info.prompts.items())
    return (
        f"model {info.name!r} was trained with prompts ({prompts}) and this call chose none; pass "
        "kind='query' or kind='document', or prompt='' to say that none is wanted"
    )


def unknown_prompt(info: ModelInfo) -> str:
    """Say that a role puts nothing in front, because nobody said what belongs there."""
    return (
        f"no prompts are known for model {info.name!r}, so its role puts nothing in front of a "
        "text; if its card names prompts, give them as ModelConfig(prompts={'query': …, "
        "'document': …}), and empty ones if it names none"
    )


def check_choices(options: EmbedOptions) -> None:
    """Refuse options that no model could fulfil.

    Raises:
        ConfigurationError: One has no such value, or two contradict each other.
    """
    for name, allowed in (
        ("overflow", get_args(Overflow)),
        ("truncate_side", get_args(TruncateSide)),
        ("precision", get_args(Precision)),
        ("kind", (*get_args(Kind), None)),
    ):
        value = getattr(options, name)
        if not isinstance(value, str | None) or value not in allowed:
            listed = ", ".join(map(repr, allowed))
            raise ConfigurationError(f"{name} = {value!r}; it has to be one of {listed}")
    if not isinstance(options.force_dimensions, bool):
        raise ConfigurationError(
            f"force_dimensions = {options.force_dimensions!r}; it has to be True or False"
        )
    if not isinstance(options.calibration, Calibration | None):
        kind = type(options.calibration).__name__
        raise ConfigurationError(f"calibration has to be a Calibration, not {kind}")
    given = [
        name for name in ("kind", "prompt", "prompt_name") if getattr(options, name) is not None
    ]
    if len(given) > 1:
        raise ConfigurationError(
            f"{' and '.join(given)} each choose what goes before the text; give one of them"
        )
    if options.window_overlap is not None and options.overflow != "window":
        raise ConfigurationError(
            f"window_overlap = {options.window_overlap} means nothing with "
            f"overflow = {options.overflow!r}; set overflow to 'window' or drop it"
        )


def _prompt(info: ModelInfo, options: EmbedOptions) -> str:
    if options.prompt is not None:
        if not isinstance(options.prompt, str):
            kind = type(options.prompt).__name__
            raise ConfigurationError(f"prompt has to be a str, not {kind}")
        return options.prompt
    if options.prompt_name is None:
        return info.prompts.get(options.kind, "") if options.kind is not None else ""
    if not isinstance(options.prompt_name, str) or options.prompt_name not in info.prompts:
        known = ", ".join(map(repr, info.prompts)) or "none"
        raise ConfigurationError(
            f"prompt_name = {options.prompt_name!r}; the prompts of model {info.name!r} are: "
            f"{known}; name one of them, give prompt= itself, or add it to ModelConfig.prompts"
        )
    return info.prompts[options.prompt_name]


def _limit(info: ModelInfo, max_tokens: int | None) -> int:
    if max_tokens is None:
        return info.n_ctx
    if not 1 <= max_tokens <= info.n_ctx:
        raise ConfigurationError(
            f"max_tokens = {max_tokens!r}; it has to be 1 to {info.n_ctx}, the limit of model "
            f"{info.name!r}"
        )
    return max_tokens


def _with_overlap(encoder: InputEncoder, overlap: int | None) -> InputEncoder:
    if overlap is None:
        overlap = int(DEFAULT_OVERLAP * max(encoder.room, 0))
    return InputEncoder(
        encoder.tokenizer,
        prompt=encoder.prompt,
        limit=encoder.limit,
        overflow="window",
        window_overlap=overlap,
    )


def _normalization(info: ModelInfo, wanted: Normalization | None) -> Normalization:
    if wanted is None:
        return info.normalization
    if isinstance(wanted, str) and wanted in ("l2", "none", "max_abs"):
        return wanted
    if _is_count(wanted) and 1 <= wanted <= MAX_P:
        return wanted
    raise ConfigurationError(
        f"normalization = {wanted!r}; it has to be 'l2', 'none', 'max_abs' or a p from 1 to {MAX_P}"
    )


def _dimensions(info: ModelInfo, wanted: int | None, *, force: bool) -> int:
    if wanted is None:
        return info.n_embd
    if not 1 <= wanted <= info.n_embd:
        raise ConfigurationError(
            f"dimensions = {wanted!r}; model {info.name!r} has vectors of 1 to {info.n_embd}"
        )
    if wanted == info.n_embd or force or wanted in info.matryoshka_dims:
        return wanted
    trained = ", ".join(map(str, info.matryoshka_dims))
    fact = f"was trained for {trained}" if trained else "does not declare any shorter length"
    raise ConfigurationError(
        f"dimensions = {wanted}, but model {info.name!r} {fact}; its first components mean "
        "little without the others; set force_dimensions=True to cut them all the same"
    )


def _calibration(info: ModelInfo, options: EmbedOptions) -> Calibration | None:
    needs = options.precision in ("int8", "uint8")
    if needs and options.calibration is None:
        raise ConfigurationError(
            f"precision = {options.precision!r} needs the range of each component: give "
            "calibration=Calibration.from_vectors(vectors of your own texts), made once and saved"
        )
    if options.calibration is not None and not needs:
        raise ConfigurationError(
            f"a calibration means nothing with precision = {options.precision!r}; drop it, or "
            "choose 'int8' or 'uint8'"
        )
    if options.calibration is not None:
        options.calibration.check_fingerprint(info.fingerprint)
        width = info.n_embd if options.dimensions is None else options.dimensions
        if options.calibration.n_embd != width:
            raise ConfigurationError(
                f"the calibration is for {options.calibration.n_embd} components and this call's "
                f"vectors have {width}; make one with Calibration.from_vectors from vectors of "
                "that length"
            )
    return options.calibration

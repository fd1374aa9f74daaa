"""The options that say how vectors are made, for every command that makes them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, cast

import typer

from embellama.cli.errors import say

if TYPE_CHECKING:
    from embellama.model_info import ModelInfo
    from embellama.precision.calibration import Calibration
    from embellama.types import Kind, Normalization, Overflow, Precision, TruncateSide


class KindChoice(StrEnum):
    """The role of a text."""

    QUERY = "query"
    DOCUMENT = "document"


class OverflowChoice(StrEnum):
    """What happens to a text over the limit."""

    ERROR = "error"
    TRUNCATE = "truncate"
    WINDOW = "window"


class SideChoice(StrEnum):
    """Which end a cut takes away."""

    RIGHT = "right"
    LEFT = "left"


class PrecisionChoice(StrEnum):
    """The type of the components."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"
    UINT8 = "uint8"
    BINARY = "binary"
    UBINARY = "ubinary"


KindOption = Annotated[
    KindChoice | None,
    typer.Option("--kind", help="The texts' role, which puts the model's prompt for it in front."),
]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", metavar="PROMPT", help="Put this in front of each text instead."),
]
PromptNameOption = Annotated[
    str | None,
    typer.Option(
        "--prompt-name", metavar="NAME", help="Put the model's prompt of this name in front."
    ),
]
OverflowOption = Annotated[
    OverflowChoice,
    typer.Option(
        "--overflow",
        help="A text over the limit: refuse it, cut it, or average overlapping windows of it.",
    ),
]
TruncateSideOption = Annotated[
    SideChoice, typer.Option("--truncate-side", help="Which end a cut takes away.")
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, metavar="N", help="A lower limit than the model's."),
]
DimensionsOption = Annotated[
    int | None,
    typer.Option(
        "--dimensions", min=1, metavar="N", help="Keep the first N components, scaled anew."
    ),
]
ForceDimensionsOption = Annotated[
    bool,
    typer.Option(
        "--force-dimensions", help="Also where the model does not declare it was trained for N."
    ),
]
NormalizationOption = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="l2|none|max_abs|P",
        help="How a vector is scaled; a number P makes its P-norm 1. [default: the model's]",
    ),
]
PrecisionOption = Annotated[
    PrecisionChoice, typer.Option("--precision", help="The type of the components.")
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="The range of each component, for int8 and uint8: what Calibration.save wrote.",
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="FILE",
        dir_okay=False,
        help="Look vectors up in this file, and keep new ones there.",
    ),
]


class VectorOptions(TypedDict, total=False):
    """Keyword arguments of the engine's embedding methods."""

    kind: Kind | None
    prompt: str | None
    prompt_name: str | None
    overflow: Overflow
    truncate_side: TruncateSide
    max_tokens: int | None
    normalization: Normalization | None
    dimensions: int | None
    force_dimensions: bool
    precision: Precision
    calibration: Calibration | None


def input_options(
    kind: KindChoice | None,
    prompt: str | None,
    prompt_name: str | None,
    overflow: OverflowChoice,
    truncate_side: SideChoice,
    max_tokens: int | None,
) -> VectorOptions:
    """Return what says how texts become tokens.

    Raises:
        typer.BadParameter: Two of them choose what goes before the texts.
    """
    chosen = {"--kind": kind, "--prompt": prompt, "--prompt-name": prompt_name}
    given = [name for name, value in chosen.items() if value is not None]
    if len(given) > 1:
        raise typer.BadParameter(
            "each chooses what goes before the texts; give one of them",
            param_hint=" and ".join(given),
        )
    return {
        "kind": kind.value if kind is not None else None,
        "prompt": prompt,
        "prompt_name": prompt_name,
        "overflow": overflow.value,
        "truncate_side": truncate_side.value,
        "max_tokens": max_tokens,
    }


def output_options(
    normalization: str | None, precision: PrecisionChoice, calibration: Path | None
) -> VectorOptions:
    """Return what says how the numbers of a vector are scaled and written.

    Raises:
        typer.BadParameter: A calibration is missing, or means nothing.
        ConfigurationError: The calibration cannot be read.
    """
    from embellama.precision.calibration import Calibration  # noqa: PLC0415

    takes_ranges = precision in (PrecisionChoice.INT8, PrecisionChoice.UINT8)
    if takes_ranges != (calibration is not None):
        raise typer.BadParameter(
            f"{precision.value} needs a file that Calibration.save wrote"
            if takes_ranges
            else f"means nothing with {precision.value}; only int8 and uint8 take one",
            param_hint="--calibration",
        )
    return {
        "normalization": _scaling(normalization),
        "precision": precision.value,
        "calibration": Calibration.load(calibration) if calibration is not None else None,
    }


def _scaling(given: str | None) -> Normalization | None:
    if given is None or given in ("l2", "none", "max_abs"):
        return cast("Normalization | None", given)
    if not (given.isascii() and given.isdigit()):
        raise typer.BadParameter(
            f"{given!r} is none of l2, none, max_abs and whole numbers from 1",
            param_hint="--normalization",
        )
    return int(given)


def fitted(options: VectorOptions, info: ModelInfo) -> VectorOptions:
    """Return the options for a model; warn where its prompts are left out.

    Raises:
        ConfigurationError: The calibration was made for another model.
    """
    calibration = options.get("calibration")
    if calibration is not None:
        calibration.check_fingerprint(info.fingerprint)
    kind = options.get("kind")
    if kind is not None and not info.prompts:
        say(f"warning: no prompts are known for model {info.name!r}; --kind puts nothing in front")
        return {**options, "kind": None}
    chosen = (kind, options.get("prompt"), options.get("prompt_name"))
    if any(part is not None for part in chosen) or not any(info.prompts.values()):
        return options
    prompts = ", ".join(f"{name}: {text!r}" for name, text in info.prompts.items())
    say(
        f"warning: model {info.name!r} was trained with prompts ({prompts}) and none is put in "
        "front; give --kind query or --kind document, or --prompt '' to say that none is wanted"
    )
    return {**options, "prompt": ""}

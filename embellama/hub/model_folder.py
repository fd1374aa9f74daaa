"""A sentence-transformers or transformers folder: where its parts are, and how it pools."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embellama.errors import ConversionError
from embellama.types import PoolingType

_POOLING_FLAGS: Mapping[str, PoolingType] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES: Mapping[str, PoolingType] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder to convert.

    Attributes:
        root: What was named.
        transformer: Where config.json, vocabulary and weights are; usually the same.
        pooling_type: How sentence-transformers pools; None if the folder does not say.
    """

    root: Path
    transformer: Path
    pooling_type: PoolingType | None


def open_model_folder(root: Path) -> ModelFolder:
    """Find the parts of a folder.

    Raises:
        ConversionError: It is no such folder, or does to a text what a GGUF cannot express.
    """
    if not os.path.isdir(root):  # of a path too long for the system, Path's own would raise
        what = "a file" if os.path.exists(root) else "not there"
        raise ConversionError(
            f"{str(root)!r} is {what}; name the folder with the model's config.json"
        )
    transformer, pooling = root, root / "1_Pooling"
    if (modules := root / "modules.json").is_file():
        steps = _steps(modules)
        _check_steps(modules, steps)
        transformer = root / steps.get("Transformer", "")
        pooling = root / steps["Pooling"] if "Pooling" in steps else root / "no pooling module"
    if not (transformer / "config.json").is_file():
        raise ConversionError(
            f"{str(transformer)!r} has no config.json; name the folder of a sentence-transformers "
            "or transformers model"
        )
    return ModelFolder(root, transformer, _pooling_type(pooling / "config.json"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConversionError: The file is missing, unreadable, or something else.
    """
    value = _parse(path)
    if not isinstance(value, dict):
        raise ConversionError(f"{str(path)!r} holds a {type(value).__name__}, not a JSON object")
    return value


def _parse(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConversionError(f"{str(path)!r} cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise ConversionError(f"{str(path)!r} is not JSON ({exc}); download it again") from exc


def _steps(modules: Path) -> dict[str, str]:
    """List the kinds of a pipeline's modules with their folders."""
    steps = _parse(modules)
    try:
        return {str(step["type"]).rpartition(".")[2]: str(step["path"]) for step in steps}
    except (TypeError, KeyError) as exc:
        raise ConversionError(
            f"{str(modules)!r} is not a list of modules with type and path; download it again"
        ) from exc


def _check_steps(modules: Path, steps: Mapping[str, str]) -> None:
    if others := sorted(set(steps) - {"Transformer", "Pooling", "Normalize"}):
        raise ConversionError(
            f"{str(modules)!r} has the modules {', '.join(others)} after pooling, which a GGUF "
            "cannot hold: its vectors would be other ones; use sentence-transformers for this model"
        )
    for path in steps.values():
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ConversionError(f"{str(modules)!r} names the folder {path!r} outside its own")


def _pooling_type(path: Path) -> PoolingType | None:
    if not path.is_file():
        return None
    config = read_json(path)
    modes = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    if not modes and config.get("pooling_mode"):
        modes = [str(config["pooling_mode"])]
    if not modes:
        return None
    pooling_type = _POOLING_FLAGS.get(modes[0]) or _POOLING_NAMES.get(modes[0])
    if len(modes) > 1 or pooling_type is None:
        raise ConversionError(
            f"{str(path)!r} pools by {' and '.join(modes)}; llama.cpp can pool by mean, cls or "
            "last, one of them: use sentence-transformers for this model"
        )
    return pooling_type

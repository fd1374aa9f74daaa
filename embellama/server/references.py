"""Names and settings of what is to be served, from what the user wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embellama.config import EngineConfig, ModelConfig
from embellama.errors import ConfigurationError, EmbellamaError
from embellama.host import DEFAULT_MODEL, name_of
from embellama.hub.reference import CatalogReference, FileReference, parse_reference


def served_references(
    given: Sequence[str],
    configured: EngineConfig,
    model_settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, str], dict[str, ModelConfig]]:
    """Work out names and settings of what is to be served: what was given, or configured.

    Args:
        given: References, with ``name=`` in front where wanted.
        configured: The engine's settings, whose models are served where none is given, or
            `DEFAULT_MODEL` where it has none either.
        model_settings: Settings that hold for each model, whatever else is configured.

    Raises:
        ConfigurationError: Two have one name, or one has none.
    """
    configs = {name_of(config): config for config in configured.all_models}
    references: dict[str, str] = {}
    if not given:
        references = {name: str(c.model_path or name) for name, c in configs.items()}
    for reference in given or ([] if references else [DEFAULT_MODEL]):
        name, separator, rest = _taken_apart(reference)
        if not separator and reference in configs:  # a configured model, by its name
            rest = str(configs[reference].model_path or reference)
        elif not separator:
            name, rest = name_of(ModelConfig(model_path=reference)), reference
        if name in references:
            raise ConfigurationError(
                f"two models would be called {name!r} ({references[name]} and {rest}); give one "
                "of them a name: name=model"
            )
        references[name] = rest
    return references, {
        name: _overlaid(configs.get(name), model_settings or {}) for name in references
    }


def _overlaid(config: ModelConfig | None, settings: Mapping[str, Any]) -> ModelConfig:
    if config is None or not settings:
        return config or ModelConfig(**settings)
    return ModelConfig(**{**config.model_dump(exclude_unset=True, exclude_none=True), **settings})


def _taken_apart(given: str) -> tuple[str, str, str]:
    """Split ``name=model``; a file whose path has such a sign in it is one as it stands."""
    name, separator, rest = given.partition("=")
    if not separator or given.startswith(("/", ".", "~")) or Path(given).is_file():
        return given, "", ""
    if not name.strip() or not rest.strip():
        raise ConfigurationError(
            f"{given!r} lacks the {'model' if name.strip() else 'name'}; write name=model, or the "
            "model alone"
        )
    return name, separator, rest


def other_names(reference: str) -> tuple[str, ...]:
    """List what clients may call a model that was loaded from a reference, that itself first."""
    try:
        parsed = parse_reference(reference)
    except EmbellamaError:  # said when it is loaded
        return (reference,)
    if not isinstance(parsed, CatalogReference):
        return (reference,)
    entry = parsed.entry
    known = (entry.name, *entry.aliases, entry.repository, entry.gguf_repository)
    return (reference, *(name for name in known if name is not None))


def check_references(references: Mapping[str, str]) -> None:
    """Refuse what cannot be there: names that mean nothing, and files that do not exist.

    Args:
        references: What is to be served, by name.

    Raises:
        ConfigurationError: A file does not exist.
        ModelNotFoundError: A name is in no catalogue.
        InvalidInputError: It is no reference.
    """
    for name, reference in references.items():
        parsed = parse_reference(reference)
        if isinstance(parsed, FileReference) and not _is_file(parsed.path):
            raise ConfigurationError(
                f"the model {name!r} is to be loaded from {str(parsed.path)!r}, and there is no "
                "such file; name a GGUF that is there, or a model of `embellama models`"
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # no path that a file could have
        return False

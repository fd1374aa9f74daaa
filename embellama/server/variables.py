"""Environment variables that look like settings and are none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from embellama._native.support import ISA_VARIABLE
from embellama.config import CONFIG_FILE_VARIABLE, EngineConfig, ModelConfig
from embellama.server.settings import ServerConfig

_PREFIX = "EMBELLAMA_"
_OTHERS = {CONFIG_FILE_VARIABLE, ISA_VARIABLE}


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Return the variables that nothing here reads, each with the one that may be meant.

    A misspelt variable can leave a server without its keys, and nothing else would tell.

    Args:
        names: Those of the environment.
    """
    known = set(_OTHERS)
    for config in (ServerConfig, EngineConfig, ModelConfig):
        known.update(config.environment_variables.values())
    unknown = sorted(name for name in names if name.startswith(_PREFIX) and name not in known)
    return {name: _nearest(name, known) for name in unknown}


def _nearest(name: str, known: Iterable[str]) -> str | None:
    # without the prefix, or all would be alike
    rests = sorted(one.removeprefix(_PREFIX) for one in known)
    nearest = difflib.get_close_matches(name.removeprefix(_PREFIX), rests, 1)
    return _PREFIX + nearest[0] if nearest else None

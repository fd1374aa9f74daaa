"""Structured events that never configure logging and never print on their own.

An event has one name, ``embellama.<area>.<past participle>``, and fields; never a text, a vector
or a secret. Where the application has configured structlog, events go there. Elsewhere they go to
the standard library's ``embellama`` logger, which has a ``NullHandler``: unconfigured structlog
would print every debug line to standard output.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog

_STANDARD = logging.getLogger("embellama")
_STANDARD.addHandler(logging.NullHandler())
_PROCESSORS: list[structlog.typing.Processor] = [
    structlog.stdlib.filter_by_level,
    structlog.processors.LogfmtRenderer(sort_keys=False, key_order=["event"]),
]


def _target() -> Any:
    if structlog.is_configured():
        return structlog.get_logger("embellama")
    return structlog.wrap_logger(
        _STANDARD, processors=_PROCESSORS, wrapper_class=structlog.stdlib.BoundLogger
    )


class Logger:
    """Sends each event to whatever logging the application has set up by then."""

    def debug(self, event: str, **fields: Any) -> None:
        """Report a detail."""
        _target().debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Report something done."""
        _target().info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Report something the user should look at."""
        _target().warning(event, **fields)


log = Logger()

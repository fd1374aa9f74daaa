"""Open files of the process: each connection is one, and most systems allow 1,024 at first."""

from __future__ import annotations

import sys

from embellama.logs import log

OTHERS = 256
"""Open files that are no connections: models, libraries, the log."""


def allow_connections(n_connections: int) -> None:
    """Raise the limit of open files as far as connections need it, and warn where they may not.

    At the limit, clients would wait without an answer instead of being refused.
    """
    if sys.platform == "win32":  # where sockets are no files
        return
    import resource  # noqa: PLC0415

    wanted = n_connections + OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_bounded = hard != resource.RLIM_INFINITY
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = min(wanted, hard) if is_bounded else wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "embellama.server.limited",
            max_connections=n_connections,
            n_open_files=allowed,
            why="the system allows fewer open files than connections: raise its limit (ulimit "
            "-Hn, LimitNOFILE=), or lower --max-connections",
        )

"""What a server is called by its clients: a page of elsewhere calls it by another name."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from embellama.server.problems import Problem

_MAX_SHOWN = 100

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]*))(?::\d*)?")
"""An IPv6 address, or else a name, and a port. Source: RFC 9110, 7.2."""


class Hosts:
    """The names that requests may have in ``Host``.

    Whoever owns a name can have it mean 127.0.0.1 after a browser has loaded a page from it: to the
    browser the page and this server then have the same origin, and CORS does not come into it (DNS
    rebinding). The name that the browser believes to talk to is what gives it away.

    Args:
        names: Names beside those of this machine itself; ``"*"``: all of them.
        is_needed: Whether nothing else keeps pages out: no key, and the address is this machine's.
    """

    def __init__(self, names: Iterable[str], *, is_needed: bool) -> None:
        self._names = set(map(_name_of, names))
        self._is_open = not is_needed or "*" in self._names
        self._last: bytes | None = None

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request to another name. One without a name is no browser's.

        Raises:
            Problem: It is one; 403.
        """
        if self._is_open:
            return
        given = headers.get(b"host", b"")
        if not given or given == self._last:
            return
        shown = given.decode("latin-1")
        name = _name_of(shown)
        if name not in self._names and not _is_own(name):
            raise Problem(
                403,
                "host_refused",
                f"the request is to {shown[:_MAX_SHOWN]!r}, and this server answers to localhost "
                "and this machine's addresses alone; start it with --allowed-host NAME, or with "
                "keys",
            )
        self._last = given  # most clients say the same


def _name_of(host: str) -> str:
    """Return a ``Host`` without its port, an IPv6 address without its brackets."""
    found = _HOST.fullmatch(host.strip().lower())
    return "" if found is None else found[1] or found[2].rstrip(".")


def _is_own(name: str) -> bool:
    """Tell whether no page can come by it: an address, or a name that nobody can register."""
    # sources: RFC 6761, 6.3; ICANN's resolution 2024.07.29.06, and host.docker.internal
    if name == "localhost" or name.endswith((".localhost", ".internal")):
        return True
    if name.rpartition(".")[2].isdecimal():  # 127.1: no name on the net ends in a number
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

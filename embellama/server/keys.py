"""Who may ask: keys, and how clients show them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from embellama.errors import ConfigurationError

MIN_KEY_CHARS = 8


class Keys:
    """The keys that clients may show. Digests are compared, each of them, in constant time.

    Args:
        keys: Key by name.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = {name: _digest(key.encode()) for name, key in keys.items()}

    @classmethod
    def read(cls, path: Path | None, others: Iterable[str] = ()) -> Keys:
        """Read a file of keys, one a line, and add others.

        Raises:
            ConfigurationError: It cannot be read, or a key is too short, or there twice.
        """
        found: dict[str, str] = {}
        lines = [] if path is None else _lines(path)
        for number, line in [*lines, *((None, other) for other in others)]:
            # the space tells a name from a key that has a colon in it
            name, _, key = line.strip().rpartition(": ")
            name, key = name.strip(), key.strip()
            where = f"{path}, line {number}" if number else "the keys given"
            if len(key) < MIN_KEY_CHARS or not key.isascii() or " " in key:
                raise ConfigurationError(
                    f"{where}: a key has {MIN_KEY_CHARS} or more ASCII characters without spaces, "
                    f"and this one has {len(key)}"
                )
            name = name or f"key{len(found) + 1}"
            if name in found or key in found.values():
                raise ConfigurationError(f"{where}: the name {name!r}, or its key, is there twice")
            found[name] = key
        if path is not None and not found:
            raise ConfigurationError(f"{path} has no key in it; write one a line")
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, key: bytes | None) -> str | None:
        """Return the name of a key; None where there is no such key."""
        shown = _digest(key if key is not None else b"")
        found = None
        for name, digest in self._digests.items():
            if hmac.compare_digest(shown, digest):
                found = name
        return found if key is not None else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _lines(path: Path) -> list[tuple[int | None, str]]:
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"cannot read the keys in {str(path)!r}: {exc}") from exc
    return [
        (number, line)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def shown_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the key in a request's headers: OpenAI's and Cohere's bearer, or ``x-api-key``."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key")
